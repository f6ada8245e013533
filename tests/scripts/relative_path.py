from pathlib import Path

print("RESULT", Path("data.txt").read_text().strip())
