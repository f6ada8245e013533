import atexit

atexit.register(print, "RESULT at exit")
print("at the end")
