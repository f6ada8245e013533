value = sum(range(10))
print("RESULT", value)
