if __name__ == "__main__":
    print("RESULT", __name__, __file__.endswith("guard.py"))
