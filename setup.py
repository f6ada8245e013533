"""Packaging: everything is read from settings.ini."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="], interpolation=None)
config.read(here / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]

EXTRAS = ("lab", "serve", "package", "loadtest", "ray", "postgres", "mysql", "s3", "streamlit", "gradio", "tensorboard",
          "timm", "cmaes", "heic", "dev")

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    license="Apache-2.0",
    keywords=cfg["keywords"].split(),
    packages=find_packages(include=["lightning_pod", "lightning_pod.*"]),
    package_data={"lightning_pod": ["assets/**/*"]},
    python_requires=f">={cfg['min_python']}",
    # a requirement with a marker holds spaces, so it has a line of its own
    install_requires=[*cfg["requirements"].split(), cfg["tracker_requirements"]],
    extras_require={n: cfg[f"{n}_requirements"].split() for n in EXTRAS},
    entry_points={"console_scripts": cfg["console_scripts"].split()},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Framework :: Jupyter",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    zip_safe=False,
)
