import argparse

p = argparse.ArgumentParser()
p.add_argument("--lr", type=float, required=True)
p.add_argument("--name", default="x")
args = p.parse_args()
print(f"RESULT {args.lr * 2} {args.name}")
