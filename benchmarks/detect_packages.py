"""Detectors of packages that this project does without: which method needs which, and the networks among them.

Contract: nothing of a package is imported before its method runs; rows come in standard deviations of the training
rows and without holes, and networks get them as they are; higher scores are odder.
"""

import importlib
import importlib.util
from collections.abc import Iterable
from typing import Any

import numpy as np

MODULES = {
    "hbos": "pyod.models.hbos",
    "ecod": "pyod.models.ecod",
    "autoencoder": "pyod.models.auto_encoder",
    "lunar": "pyod.models.lunar",
    "deepsvdd": "pyod.models.deep_svdd",
    "icl": "deepod.models.tabular.icl",
    "matrix-profile": "stumpy",
    "matrix-profile-raw": "stumpy",
}
INSTALL = {
    "pyod": "pip install pyod",
    "deepod": "pip install --no-deps deepod, as it asks for a torch that is older than this project's",
    "stumpy": "pip install stumpy",
}

Scores = np.ndarray


def package_of(method: str) -> str:
    """Give the package that a method needs, empty where it needs none."""
    return MODULES.get(method, "").partition(".")[0]


def installed(method: str) -> bool:
    package = package_of(method)
    return not package or importlib.util.find_spec(package) is not None


def needs(methods: Iterable[str]) -> str:
    """Say which packages the methods need and where they come from, empty where they need none."""
    chosen = list(methods)
    said = []
    for package, source in INSTALL.items():
        names = [method for method in chosen if package_of(method) == package]
        if names:
            said.append(f"{', '.join(names)} need{'s' * (len(names) == 1)} {package}: {source}")
    return "; ".join(said)


def import_module_of(method: str) -> Any:
    return importlib.import_module(MODULES[method])


def scored(detector: Any, train: np.ndarray, test: np.ndarray) -> Scores:
    return detector.fit(train).decision_function(test)


def autoencoder(train: np.ndarray, test: np.ndarray, seed: int) -> Scores:
    """Distance of a row to what PyOD's autoencoder gives back.

    Differs: without PyOD's own standardisation, which divides by 1e-8 what is constant in the training rows.
    """
    model = import_module_of("autoencoder").AutoEncoder
    return scored(model(preprocessing=False, verbose=0, random_state=seed), train, test)


def lunar(train: np.ndarray, test: np.ndarray, seed: int) -> Scores:
    """What PyOD's LUNAR makes of the distances to the nearest training rows. Source: Goodge et al. 2022."""
    return scored(import_module_of("lunar").LUNAR(random_state=seed), train, test)


def deepsvdd(train: np.ndarray, test: np.ndarray, seed: int) -> Scores:
    """Distance to the centre of PyOD's Deep SVDD. Source: Ruff et al. 2018."""
    model = import_module_of("deepsvdd").DeepSVDD
    return scored(model(train.shape[1], preprocessing=False, verbose=0, random_state=seed), train, test)


def icl(train: np.ndarray, test: np.ndarray, seed: int) -> Scores:
    """Contrastive loss of DeepOD's ICL. Source: Shenkar and Wolf 2022.

    Differs: one network, as DeepOD 0.4.1 trains several and scores with the last one alone.
    """
    model = import_module_of("icl").ICL
    return scored(model(n_ensemble=1, device="cpu", verbose=0, random_state=seed), train, test)
