import os
import tempfile

os.chdir(tempfile.mkdtemp())
os.environ["LEFT_BEHIND"] = "1"
open("here.txt", "w").write("x")
print("RESULT", os.listdir("."))
