import base64

from classifiers.plots import new_figure, svg_document
from classifiers.webpage import html_document, html_table, svg_image


def test_cells_and_titles_are_text_and_never_markup():
    assert html_table(["<b>"], [["a & b", "<i>"]]).count("<b>") == 0
    assert "<td>a &amp; b</td><td>&lt;i&gt;</td>" in html_table(None, [["a & b", "<i>"]])
    assert "<title>&lt;x&gt;</title>" in html_document("<x>", "")


def test_a_table_without_a_head_has_none():
    assert "<thead>" not in html_table(None, [["a"]])
    assert "<thead><tr><th>h</th></tr></thead>" in html_table(["h"], [["a"]])


def test_an_image_is_held_by_the_page_itself():
    image = svg_image("<svg>é</svg>", 'a "plot"')
    data = image.split("base64,")[1].split('"')[0]
    assert base64.b64decode(data).decode() == "<svg>é</svg>"
    assert 'alt="a &quot;plot&quot;"' in image


def test_a_figure_gives_the_same_svg_whenever_it_is_drawn():
    def draw():
        figure, axis = new_figure((2.0, 1.5))
        axis.plot([0, 1], [0, 1], label="line")
        axis.legend()
        return svg_document(figure)

    first = draw()
    assert first == draw()
    assert first.lstrip().startswith("<?xml")
    assert "<dc:date>" not in first
