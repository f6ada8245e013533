import os

print("RESULT", os.environ["GIVEN"], "PATH" in os.environ)
