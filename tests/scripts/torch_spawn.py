import torch.multiprocessing as mp


def work(rank, results):
    results[rank] = rank + 1


if __name__ == "__main__":
    results = mp.get_context("spawn").Array("i", 2)
    mp.spawn(work, (results,), nprocs=2)
    print("RESULT", list(results))
