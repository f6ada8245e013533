import pickle
from dataclasses import dataclass


@dataclass
class Point:
    x: int


print("RESULT", pickle.loads(pickle.dumps(Point(3))))
