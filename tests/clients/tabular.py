"""What the test data say of a model of rows of numbers: the request, and the right answers."""

import json
import sys

import numpy


class Tabular:
    """One model. `given` is NAME=ROWS/ANSWERS, such as `digits-svm=digits/svm`."""

    def __init__(self, given, requests):
        self.name, where = given.split("=")
        rows, answers = where.split("/")
        self.rows = numpy.array(requests[rows]["rows"], dtype=numpy.float32)
        self.answers = numpy.array(requests[rows][answers])

    def hold_against(self, got, who):
        """Ends the program with a message if an answer is not right."""
        got = numpy.asarray(got, dtype=numpy.float64).reshape(-1)
        if got.shape != self.answers.shape or not numpy.allclose(got, self.answers, rtol=0, atol=1e-6):
            sys.exit(f"{who}: {self.name} answers {got.tolist()}, right is {self.answers.tolist()}")


def arguments():
    """The address, and the models of the command line: ADDRESS REQUESTS_FILE MODEL..."""
    address, requests_file, *models = sys.argv[1:]
    with open(requests_file, encoding="utf-8") as file:
        requests = json.load(file)
    return address, [Tabular(model, requests) for model in models]
