import torch
from torch.utils.data import DataLoader, Dataset


class Numbers(Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, i):
        return torch.tensor(i)


if __name__ == "__main__":
    print("RESULT", sum(int(b.sum()) for b in DataLoader(Numbers(), batch_size=4, num_workers=2)))
