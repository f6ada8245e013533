print("RESULT before")
raise KeyError("the reason")
