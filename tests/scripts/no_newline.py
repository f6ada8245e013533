import sys

for i in range(3):
    print(i, end="", flush=True)
sys.stdout.write(" RESULT no newline")
