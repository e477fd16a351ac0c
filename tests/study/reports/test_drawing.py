import io

import matplotlib as mpl
import matplotlib.pyplot as plt

from rfjax.study.reports import drawing


def drawn() -> bytes:
    with drawing.style():
        figure, axes = plt.subplots()
        axes.loglog([1, 1e6], [1, 2], label="d1")
        axes.legend()
        out = io.BytesIO()
        figure.savefig(out, format="png")
        plt.close(figure)
    return out.getvalue()


def test_figures_are_the_same_whatever_the_user_s_own_style_says():
    usual = drawn()
    with mpl.rc_context({"text.usetex": True, "lines.linewidth": 9.0, "axes.facecolor": "black"}):
        assert drawn() == usual
        assert mpl.rcParams["lines.linewidth"] == 9.0


def test_powers_of_ten_are_drawn_as_such():
    with drawing.style():
        figure, axes = plt.subplots()
        axes.loglog([1, 1e6], [1, 2])
        assert all(label.get_parse_math() for label in axes.get_xticklabels())
        plt.close(figure)
