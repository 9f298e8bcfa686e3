"""What recording costs and what it can be believed for: essential dynamics, events of a keeper, and seconds.

Run it from the root of the repository: ``python benchmarks/recording.py``.
"""

import importlib
import math
import time

import jax
import numpy as np

from slt_jax.spectroscopy import History, essential_dynamics, random_walk_shares, recorder_of
from slt_jax.spectroscopy.keeping import POINTS, WINDOW, Curves, Rule, add, place
from slt_jax.studies.study import train

OUTPUTS, DIRECTIONS, TIMES = 2000, 128, 120


def principal(outputs):
    """Shares of variance and scores of the whole outputs."""
    left, singular, _ = np.linalg.svd(outputs - outputs.mean(axis=0), full_matrices=False)
    scores = left * singular
    return singular**2 / np.sum(singular**2), scores * np.where(scores[-1] < scores[0], -1.0, 1.0)


def projected(random, outputs):
    signs = random.choice([-1.0, 1.0], (outputs.shape[1], DIRECTIONS)) / math.sqrt(DIRECTIONS)
    return essential_dynamics(History(np.arange(len(outputs)), {}, {}, {"outputs": outputs @ signs}))


def dynamics(runs=200):
    """How often two reported errors hold what the whole outputs say, over trajectories with corners."""
    random = np.random.default_rng(0)
    missed, stated = [], []
    score_missed, score_stated = [], []
    for _ in range(runs):
        at, size = np.sort(random.uniform(20, 100, 3)), np.sort(random.uniform(1, 4, 3))[::-1]
        switches = size / (1 + np.exp(-(np.arange(TIMES)[:, None] - at) / 3))
        outputs = switches @ random.normal(size=(3, OUTPUTS)) / math.sqrt(OUTPUTS)
        shares, scores = principal(outputs)
        found = projected(random, outputs)
        missed.append(np.abs(found.shares - shares[:3]))
        stated.append(found.share_errors)
        score_missed.append(np.abs(found.scores - scores[:, :3]))
        score_stated.append(found.score_errors)
    within = np.mean(np.array(missed) < 2 * np.array(stated), axis=0)
    score_within = np.mean(np.array(score_missed) < 2 * np.array(score_stated), axis=(0, 1))
    print(f"shares missed by {np.mean(missed, axis=0).round(4)}, within two errors in {within}")
    print(f"scores within two errors at a share of {score_within.round(3)} of all steps")


def walks(runs=100):
    random = np.random.default_rng(1)
    found = [projected(random, np.cumsum(random.normal(size=(TIMES, OUTPUTS)), axis=0)) for _ in range(runs)]
    shares, cosines = (np.array([getattr(one, name) for one in found]) for name in ("shares", "cosines"))
    print(f"random walks: shares {shares.mean(axis=0).round(3)}, exactly {random_walk_shares(3).round(3)}")
    print(f"their likeness to cosines: {cosines.mean(axis=0).round(3)}")


def events(curve, steps):
    curves, found = Curves([], {}, {}), []
    for step, value in zip(steps, curve, strict=True):
        far = not curves.places or place(step) - curves.places[-1] >= WINDOW / POINTS
        if far and add(curves, int(step), {"all": value}, Rule()):
            found.append(step)
    return np.array(found), len(curves.places)


def keeper(runs=200):
    """Planted falls: how many have an event, and what share of all offers elsewhere is called one."""
    steps = np.arange(0, 20_000, 5)
    for correlation, size in ((0.0, 0.01), (0.95, 0.01), (0.0, 0.05)):
        random = np.random.default_rng(2)
        recalled, falls, false, elsewhere, quiet = 0, 0, 0, 0, 0
        for _ in range(runs):
            at = np.exp(np.sort(random.uniform(math.log(100), math.log(15_000), 3)))
            curve = 1 + sum(0.4 / (1 + np.exp(np.clip((steps - one) / (0.06 * one), -50, 50))) for one in at)
            kicks = random.normal(size=len(steps)) * math.sqrt(1 - correlation**2)
            noise = np.array(kicks)
            for index in range(1, len(noise)):
                noise[index] = correlation * noise[index - 1] + kicks[index]
            found, offers = events(curve + size * noise, steps)
            near = np.abs(np.log((found[:, None] + 1) / at)) if found.size else np.zeros((0, 3))
            recalled, falls = recalled + int((near < 0.2).any(axis=0).sum()), falls + 3
            false, elsewhere = false + int((near > 0.5).all(axis=1).sum()), elsewhere + offers
            quiet += len(events(1 + size * noise, steps)[0])
        print(f"noise {size} of correlation {correlation}: recall {recalled / falls:.3f} of {falls} falls")
        print(
            f"  called events: {false / elsewhere:.5f} of all offers elsewhere, {quiet / elsewhere:.5f} without falls"
        )


def seconds():
    """Processor seconds of the training of each study, without and with what is observed."""
    for name in ("semantics", "superposition", "digits"):
        study = importlib.import_module(f"slt_jax.studies.{name}").study()
        bare = study._replace(subject=study.subject._replace(observations={}))
        spent = []
        for one in (bare, study):
            recorder = recorder_of(one.subject, one.record_at)
            begin = time.process_time()
            train(jax.random.key(0), one, recorder, lambda *_: None, lambda *_: None)
            spent.append(time.process_time() - begin)
        print(
            f"{name}: {spent[0]:.1f} s without, {spent[1]:.1f} s with outputs and norms at {len(study.record_at)} steps"
        )


if __name__ == "__main__":
    dynamics()
    walks()
    keeper()
    seconds()
