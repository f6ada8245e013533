import sys

config = {"model": {"lr": 0.1, "layers": 2}}
for override in sys.argv[1:]:
    key, value = override.split("=")
    section, name = key.split(".")
    config[section][name] = type(config[section][name])(value)
print("RESULT", config["model"])
