"""`NoveltyDetector`: what scikit-learn expects of a detector, its scores and its threshold, its folder."""

import pickle

import numpy as np
import pandas
import pytest
import torch
from sklearn.datasets import load_wine
from sklearn.metrics import roc_auc_score
from sklearn.utils.estimator_checks import check_estimator

from jensen.errors import InputError
from jensen.mixture import Novelty
from jensen.sklearn import NoveltyDetector

X, Y = load_wine(return_X_y=True)


@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks_pass():
    check_estimator(NoveltyDetector(), on_skip=None)


def test_the_scores_are_those_of_novelty():
    detector = NoveltyDetector(random_state=3).fit(X[Y < 2])
    expected = Novelty.fit(torch.from_numpy(X[Y < 2]), seed=detector.seed_)(torch.from_numpy(X))
    np.testing.assert_array_equal(detector.score_samples(X), expected.numpy())
    assert roc_auc_score(Y[100:] == 2, -detector.decision_function(X[100:])) > 0.95
    assert not hasattr(detector, "fit_predict")


def test_the_share_of_fresh_usual_rows_below_the_threshold_is_the_contamination():
    """The share of 1,000 fresh rows lies within 4 errors of 0.2; the threshold is a quantile of 500 rows."""
    source = np.random.default_rng(0)
    rows = source.standard_normal((1500, 3)) @ source.standard_normal((3, 3))
    share = (NoveltyDetector(contamination=0.2, random_state=0).fit(rows[:500]).predict(rows[500:]) == -1).mean()
    assert abs(share - 0.2) < 4 * np.sqrt(0.16 / 1000 + 0.16 / 500)  # fails by chance once in 10,000 runs


def test_a_folder_and_a_pickle_hold_the_detector(tmp_path):
    frame = pandas.DataFrame(X[:60], columns=load_wine().feature_names)
    detector = NoveltyDetector(contamination=0.05, random_state=0).fit(frame)
    for other in (
        NoveltyDetector.load(detector.save(tmp_path / "saved")),
        pickle.loads(pickle.dumps(detector)),
    ):
        np.testing.assert_array_equal(other.decision_function(frame[:9]), detector.decision_function(frame[:9]))
        with pytest.raises(ValueError, match="feature names"):
            other.predict(frame.rename(columns={"ash": "dust"}))
    with pytest.raises(InputError, match="exists and would be lost"):
        detector.save(tmp_path / "saved")
    (tmp_path / "saved" / "rows.safetensors").write_bytes(b"no tensors")
    for folder in ("saved", "nowhere"):
        with pytest.raises(InputError, match=r"is not a folder that NoveltyDetector\.save has written"):
            NoveltyDetector.load(tmp_path / folder)


def test_a_share_that_is_none_is_refused():
    with pytest.raises(InputError, match=r"contamination=0\.7: expected a share"):
        NoveltyDetector(contamination=0.7).fit(X)
