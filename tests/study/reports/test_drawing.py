import io

import matplotlib as mpl
import matplotlib.pyplot as plt

from rfjax.study.reports import drawing


def drawn() -> bytes:
    with drawing.style():
        figure, axes = plt.subplots()
        axes.plot([1, 2], [1, 2], label="a $name$ with dollars")
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
