from beside import double

print("RESULT", double(21))
