"""Where the texts of a picture of curves stand: none may leave the picture or touch another."""

from __future__ import annotations

import matplotlib
from matplotlib.text import Text

from drillcore.pictures.curves import DPI, STYLE, figure_of
from drillcore.pictures.data import Charts


def assert_no_text_is_cut_or_touches_another(charts: Charts, columns: int = 2) -> None:
    """Measure the box of every text of the charts' picture, in pixels."""
    with matplotlib.rc_context({**STYLE, "font.family": ["DejaVu Sans"]}):
        figure = figure_of(charts, min(columns, len(charts.charts)))
        figure.set_dpi(DPI)
        figure.canvas.draw()
        renderer = figure.canvas.get_renderer()
        texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
        hidden = {t for ax in figure.axes if not ax.get_visible() for t in ax.findobj(Text)}
        for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
            low, high = sorted(axis.get_view_interval())
            hidden |= {tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high}
        boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in texts if t not in hidden]
    width, height = figure.bbox.width, figure.bbox.height
    assert len(boxes) > 10 * len(charts.charts)
    for i, (text, box) in enumerate(boxes):
        assert box.x0 >= -1 and box.x1 <= width + 1 and box.y0 >= -1 and box.y1 <= height + 1, (text, box)
        for other_text, other in boxes[i + 1 :]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            assert across <= 1 or min(box.y1, other.y1) - max(box.y0, other.y0) <= 1, (text, other_text)
