import threading

found = []
threads = [threading.Thread(target=found.append, args=(i,)) for i in range(3)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print("RESULT", sorted(found))
