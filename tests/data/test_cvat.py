"""CVAT's own XML, as its exporter writes it."""

from __future__ import annotations

import pytest

from data.published_folders import write_image
from scenerl import data
from scenerl.errors import DataError

META = """<meta><task><id>7</id><name>pets</name><size>2</size><mode>annotation</mode><labels>
<label><name>cat</name><color>#ff0000</color><type>any</type><attributes></attributes></label>
<label><name>dog</name><type>rectangle</type><attributes><attribute><name>age</name><input_type>number</input_type>
</attribute></attributes></label>
<label><name>blurred</name><type>tag</type><attributes></attributes></label>
<label><name>nose</name><type>points</type><attributes></attributes><parent>face</parent></label>
</labels></task></meta>"""
BOX = """<box label="dog" source="manual" occluded="0" xtl="10.00" ytl="20.00" xbr="40.00" ybr="60.00" z_order="0">
<attribute name="age">3</attribute></box>"""


def image(*shapes, name="a.jpg", more=""):
    return f'<image id="0" name="{name}"{more} width="100" height="80">{"".join(shapes)}</image>'


def write(folder, *images, meta=META, start='<?xml version="1.0" encoding="utf-8"?>'):
    path = folder / "annotations.xml"
    path.write_text(f"{start}\n<annotations>\n<version>1.1</version>{meta}{''.join(images)}</annotations>\n")
    return path


def boxes(source, **options):
    return [
        (example.image_id, [(item.label, item.box) for item in example.graph.objects])
        for example in data.load(source, **options)
    ]


@pytest.mark.parametrize("source", ["{}/annotations.xml", "{}", "cvat:{}", "cvat:{}/annotations.xml", "annotated:{}"])
def test_a_task_as_it_is_exported(tmp_path, source):
    write_image(tmp_path / "images" / "a.jpg", (100, 80))
    write_image(tmp_path / "images" / "b.jpg", (100, 80))
    write(tmp_path, image(BOX, '<tag label="blurred" source="manual"></tag>'), image(name="b.jpg"))
    first, second = data.load(source.format(tmp_path), need_images=True)
    assert (first.image_id, first.image_wh, first.query) == ("a.jpg", (100, 80), ("cat", "dog"))
    assert [(item.label, item.box) for item in first.graph.objects] == [("dog", (10, 20, 40, 60))]
    assert first.image == (tmp_path / "images" / "a.jpg").absolute() and second.graph.objects == ()


@pytest.mark.parametrize(
    "shape, box",
    [
        # A rectangle of 40 x 10 around (30, 35), turned about its centre.
        ('box xtl="10.00" ytl="30.00" xbr="50.00" ybr="40.00" rotation="90.00"', (25, 15, 35, 55)),
        ('box xtl="10.00" ytl="30.00" xbr="50.00" ybr="40.00" rotation="180.00"', (10, 30, 50, 40)),
        # At 30 degrees: half of 40 cos + 10 sin is 19.82, half of 40 sin + 10 cos is 14.33.
        ('box xtl="10.00" ytl="30.00" xbr="50.00" ybr="40.00" rotation="30.00"', (10.179, 20.67, 49.821, 49.33)),
        ('polygon points="25.00,20.00;40.00,30.00;12.00,60.00;10.00,25.00"', (10, 20, 40, 60)),
        ('ellipse cx="30.00" cy="35.00" rx="20.00" ry="5.00"', (10, 30, 50, 40)),
        ('ellipse cx="30.00" cy="35.00" rx="20.00" ry="5.00" rotation="90.00"', (25, 15, 35, 55)),
        ('mask rle="3, 5, 4" left="10" top="20" width="4" height="3"', (10, 20, 14, 23)),
        (
            'cuboid xtl1="10" ytl1="20" xbl1="10" ybl1="60" xtr1="30" ytr1="20" xbr1="30" ybr1="60" '
            'xtl2="40" ytl2="15" xbl2="40" ybl2="50" xtr2="45" ytr2="15" xbr2="45" ybr2="50"',
            (10, 15, 45, 60),
        ),
    ],
)
def test_shapes_count_by_the_upright_box_around_them(tmp_path, shape, box):
    path = write(tmp_path, image(f'<{shape} label="dog" source="manual" occluded="0" z_order="0"/>'))
    assert boxes(path) == [("a.jpg", [("dog", pytest.approx(box, abs=0.001))])]


@pytest.mark.parametrize(
    "shape, message",
    [
        ('<points label="dog" points="1.00,2.00"/>', "a points has no box; allowed: box, polygon, ellipse"),
        ('<polyline label="dog" points="1,2;3,4"/>', "a polyline has no box"),
        ('<skeleton label="face"><points label="nose" points="1,2"/></skeleton>', "a skeleton has no box"),
        ('<polygon label="dog" points="1,2;x,4"/>', "a polygon must have a label and its numbers"),
        ('<polygon label="dog" points=""/>', "a polygon must have a label and its numbers"),
        ('<polygon label="dog"/>', "a polygon must have a label and its numbers"),
        ('<box label="dog" xtl="1" ytl="2" xbr="3"/>', "a box must have a label and its numbers"),
        ('<box label="dog" xtl="nan" ytl="2" xbr="3" ybr="4"/>', "a box must have a label and its numbers"),
        ('<box label="dog" xtl="1" ytl="2" xbr="3" ybr="4" rotation="inf"/>', "a box must have a label and its"),
        ('<box xtl="1" ytl="2" xbr="3" ybr="4"/>', "a box must have a label and its numbers"),
        ('<cuboid label="dog" xtl1="1"/>', "a cuboid must have a label and its numbers"),
    ],
)
def test_a_shape_without_a_box_is_an_error_of_its_image(tmp_path, shape, message):
    path = write(tmp_path, image(BOX, shape), image(BOX, name="b.jpg"))
    with pytest.raises(DataError, match=f"image a.jpg: shape 1: {message}"):
        boxes(path)
    assert boxes(path, skip_bad=True) == [("b.jpg", [("dog", (10, 20, 40, 60))])]


def test_settings_and_labels_that_meta_lacks(tmp_path):
    path = write(tmp_path, image(BOX.replace('"dog"', '" big  dog "')))
    assert next(iter(data.load(path))).query == ("cat", "dog", "big dog")
    for source in (f"cvat:{path},query=present", f"annotated:{path},query=present"):
        assert next(iter(data.load(source))).query == ("big dog",)
    with pytest.raises(DataError, match="images=nowhere: there is no such folder"):
        boxes(f"cvat:{path},images=nowhere")


def test_subsets_of_a_project_are_splits(tmp_path):
    for subset in ("Train", "Validation"):
        write_image(tmp_path / "images" / subset / "a.jpg", (100, 80))
    parts = [image(BOX, more=f' subset="{subset}" task_id="1"') for subset in ("Train", "Validation")]
    path = write(tmp_path, *parts)
    both = list(data.load(path, need_images=True))
    assert [example.image_id for example in both] == ["Train/a.jpg", "Validation/a.jpg"]
    assert both[1].image == (tmp_path / "images" / "Validation" / "a.jpg").absolute()
    assert [one for one, _ in boxes(path, split="Validation")] == ["Validation/a.jpg"]
    with pytest.raises(DataError, match="has no split 'test'; allowed: Train, Validation"):
        boxes(path, split="test")


def test_videos_are_refused_with_what_to_export(tmp_path):
    track = '<track id="0" label="dog" source="manual"><box frame="0" keyframe="1" outside="0" xtl="1"/></track>'
    with pytest.raises(DataError, match=r"annotations\.xml: is 'CVAT for video'; export .* 'CVAT for images 1\.1'"):
        boxes(write(tmp_path, track))


ENTITIES = '<?xml version="1.0"?><!DOCTYPE {} [<!ENTITY a "{}"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("content", ["&b;", "&c;", "&a;"])
def test_entities_are_refused(tmp_path, content):
    start = ENTITIES.format("annotations", "x" * 1000)
    path = write(tmp_path, image(BOX), meta=f"<meta>{content}</meta>", start=start)
    with pytest.raises(DataError, match="declares a document type"):
        boxes(path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "not XML as expected"),
        ("<annotations><image>", "not XML as expected"),
        ("PK\x03\x04 zipped", "not XML as expected"),
        ("<annotation><object/></annotation>", "begins with 'annotation'; expected CVAT's XML"),
        ("<annotations><image width='1' height='1'/></annotations>", "an image without a name of its own"),
        ("<annotations>" + image() * 2 + "</annotations>", "an image without a name of its own"),
        ("<annotations><version>1.1</version></annotations>", "is empty: 0 rows"),
        ("<annotations><image name='a.jpg'><box label='dog'/></image></annotations>", "a box must have a label"),
        ("<annotations><image name='a.jpg' width='²' height='8'/></annotations>", "width must be a whole number"),
        ("<a>" * 200_000, "not XML as expected"),
    ],
)
def test_files_that_are_none_are_named(tmp_path, text, message):
    path = tmp_path / "annotations.xml"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        boxes(f"cvat:{path}")
    assert "annotations.xml" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.xml: cannot be read \(No such file"):
        boxes(f"cvat:{tmp_path / 'nothing.xml'}")
    with pytest.raises(DataError, match=r"holds none of: annotations\.xml"):
        boxes(f"cvat:{tmp_path}")
