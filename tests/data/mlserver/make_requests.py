"""Makes requests.json: rows for the three models, and what scikit-learn, XGBoost and LightGBM themselves answer to them.

usage: make_requests.py > requests.json        (by the Python of the MLServer environment)
"""

import json
import os
import warnings

import joblib
import lightgbm
import numpy
import xgboost
from sklearn.datasets import load_digits

warnings.filterwarnings("ignore")
HERE = os.path.dirname(os.path.abspath(__file__))


def digits():
    """One handwritten digit of each kind; the SVM names it."""
    data = load_digits()
    model = joblib.load(os.path.join(HERE, "mnist-svm.joblib"))
    right = model.predict(data.data) == data.target
    rows = numpy.array([data.data[numpy.flatnonzero(right & (data.target == digit))[0]] for digit in range(10)])
    return {"rows": rows.tolist(), "svm": model.predict(rows).tolist()}


def mushrooms():
    """Mushrooms that do not exist, drawn with a fixed seed: each trait is there (1) or not (-1; a 0 would count as there).

    One for each answer that XGBoost has."""
    model = xgboost.XGBRegressor()
    model.load_model(os.path.join(HERE, "mushroom.json"))
    random = numpy.random.default_rng(7)
    rows = numpy.where(random.random((2000, 126)) < 0.4, 1, -1).astype(numpy.float32)
    _, first = numpy.unique(model.predict(rows), return_index=True)
    rows = rows[first]
    booster = lightgbm.Booster(model_file=os.path.join(HERE, "mushroom.bst"))
    return {
        "rows": rows.tolist(),
        "xgboost": model.predict(rows).tolist(),
        "lightgbm": booster.predict(rows).tolist(),
    }


print(json.dumps({"digits": digits(), "mushrooms": mushrooms()}))
