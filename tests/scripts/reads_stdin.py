import sys

print("RESULT", repr(sys.stdin.read()))
