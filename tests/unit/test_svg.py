"""SVG: ordinary files of vector models are accepted, and whatever might run or fetch something is refused by name."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import BrokenImage
from pipeline.images.inspect import inspect_svg

if TYPE_CHECKING:
    from collections.abc import Callable

SVG = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {}>{}</svg>'


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ('width="640" height="480"', (640, 480)),
        ('width="640px" height="480.4px"', (640, 480)),
        ('viewBox="0 0 24 12"', (24, 12)),
        ('viewBox="0,0,24,12" width="100%" height="100%"', (24, 12)),
        ('viewBox="0 0 24 12" width="48"', (48, 24)),
        ('width="1in" height="2.54cm"', (96, 96)),
    ],
)
def test_an_svg_has_the_size_of_its_attributes_or_its_view_box(attributes: str, size: tuple[int, int]) -> None:
    picture = inspect_svg(SVG.format(attributes, '<rect fill="url(#a)"/><use href="#b"/>').encode())
    assert (picture.format, picture.width, picture.height) == ("svg", *size)


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ("<script>alert(1)</script>", "<script>"),
        ("<x:script xmlns:x='http://www.w3.org/2000/svg'/>", "<script>"),
        ('<rect onload="alert(1)"/>', "handler onload"),
        ('<a href="javascript:alert(1)"/>', "script in href"),
        ('<a xlink:href=" java&#10;script:alert(1)"/>', "script in href"),
        ('<image href="https://example.com/a.png"/>', "outside the file"),
        ('<image xlink:href="//example.com/a.png"/>', "outside the file"),
        ('<use href="file:///etc/passwd#a"/>', "outside the file"),
        ('<image href="data:image/svg+xml;base64,AAAA"/>', "outside the file"),
        ('<rect style="fill: url(http://example.com)"/>', "outside the file"),
        ("<style>@import 'http://example.com';</style>", "outside the file"),
        ("<foreignObject/>", "<foreignObject>"),
        ("<?php echo 1 ?>", "instruction"),
        ("<rect>", "not a complete SVG"),
        ("&nbsp;", "not a complete SVG"),
    ],
)
def test_an_svg_that_could_run_or_fetch_something_is_refused(inside: str, words: str) -> None:
    with pytest.raises(BrokenImage, match=words):
        inspect_svg(SVG.format('width="1" height="1"', inside).encode())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"<html/>", "outermost element is <html>"),
        (b'<!DOCTYPE svg [<!ENTITY a "aa">]><svg xmlns="http://www.w3.org/2000/svg">&a;</svg>', "DOCTYPE"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "without a size"),
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="1" heig', "not a complete SVG"),
    ],
)
def test_what_is_no_svg_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(BrokenImage, match=words):
        inspect_svg(content)


def test_a_picture_inside_an_svg_may_be_a_png() -> None:
    inside = '<image href="data:image/png;base64,iVBORw0KGgo="/>'
    assert inspect_svg(SVG.format('width="3" height="2"', inside).encode()).width == 3


AWAY = "http://127.0.0.1:9/a"
XHTML = 'xmlns:h="http://www.w3.org/1999/xhtml"'
NEWLINES = "a{}\n" * 30_000
HOSTILE = {
    "character references in @import": f"<style>&#64;&#105;mport '{AWAY}';</style>",
    "CDATA in @import": f"<style>@im<![CDATA[port]]> '{AWAY}';</style>",
    "a comment in @import": f"<style>@im<!-- -->port '{AWAY}';</style>",
    "an escape in @import": f"<style>@\\69mport '{AWAY}';</style>",
    "a letter escaped in @import": f"<style>@\\import '{AWAY}';</style>",
    "character references in url": f"<style>rect{{fill:&#117;rl({AWAY})}}</style>",
    "CDATA in url": f"<style>rect{{fill:u<![CDATA[rl(]]>{AWAY})}}</style>",
    "a comment in url": f"<style>rect{{fill:ur<!-- -->l({AWAY})}}</style>",
    "an escape in url": f"<style>rect{{fill:u\\72l({AWAY})}}</style>",
    "six digits and a space in url": f"<style>rect{{fill:\\000075 rl({AWAY})}}</style>",
    "an escape that ends in a blank before the parenthesis": f"<style>rect{{fill:ur\\6c ({AWAY})}}</style>",
    "the same in style=": f'<rect style="fill:\\75\\72\\6C&#10;({AWAY})"/>',
    "the same in an attribute": f'<rect fill="ur\\00006c\t({AWAY})"/>',
    "an escape in style=": f'<rect style="fill:u\\72l({AWAY})"/>',
    "an escape in an attribute": f'<rect fill="\\75rl({AWAY})"/>',
    "an escaped quote": '<rect fill="url(\\22#a\\22)"/>',
    "capitals": f'<rect fill="URL({AWAY})"/>',
    "blanks in url": f"<style>rect{{fill:url( \n\t '{AWAY}' )}}</style>",
    "a safe url before": f'<rect fill="url(#a) url({AWAY})"/>',
    "a safe url in a string": f"<style>a{{content:'url(#a)'}} b{{fill:url({AWAY})}}</style>",
    "a comment around": f"<style>a{{content:'/*'}} b{{fill:url({AWAY})}} c{{content:'*/'}}</style>",
    "image-set": f"<style>rect{{mask:image-set('{AWAY}' 1x)}}</style>",
    "-webkit-image-set": f"<style>rect{{mask:-webkit-image-set('{AWAY}' 1x)}}</style>",
    "src": f"<style>rect{{fill:src('{AWAY}')}}</style>",
    "cross-fade": f"<style>rect{{mask:cross-fade('{AWAY}', red)}}</style>",
    "a function of a long name": f"<style>rect{{fill:{'x' * 60}url({AWAY})}}</style>",
    "a font": f"<style>@font-face{{font-family:a;src:url({AWAY})}}</style>",
    "a namespace rule": f"<style>@namespace url({AWAY});</style>",
    "@import in the first of many pieces": f"<style>@import '{AWAY}';{NEWLINES}</style>",
    "a cursor": f'<rect cursor="url({AWAY}),auto"/>',
    "srcset": f'<h:img {XHTML} srcset="{AWAY} 1x"/>',
    "a poster": f'<h:video {XHTML} poster="{AWAY}"/>',
    "a background": f'<h:body {XHTML} background="{AWAY}"/>',
    "imagesrcset": f'<h:link {XHTML} rel="preload" as="image" imagesrcset="{AWAY}"/>',
    "a refresh": f'<h:meta {XHTML} http-equiv="refresh" content="0;url={AWAY}"/>',
    "a refresh in the metadata": f'<metadata><h:meta {XHTML} http-equiv="refresh" content="0;url={AWAY}"/></metadata>',
    "a base": f'<h:base {XHTML} href="{AWAY}"/>',
    "xml:base": f'<g xml:base="{AWAY}"><use href="#a"/></g>',
    "set of href": f'<image><set attributeName="href" to="{AWAY}"/></image>',
    "set of xlink:href": f'<image><set attributeName="xlink:href" to="{AWAY}"/></image>',
    "animated values": f'<image><animate attributeName="href" values="{AWAY};{AWAY}"/></image>',
    "animated feImage": f'<filter><feImage><animate attributeName="href" values="{AWAY}"/></feImage></filter>',
    "an animated fill": f'<rect><set attributeName="fill" to="url({AWAY})"/></rect>',
    "an animated style": '<rect><set attributeName="style" to="fill:red"/></rect>',
    "feImage": f'<filter><feImage href="{AWAY}"/></filter>',
    "a font of SVG": f'<font-face><font-face-src><font-face-uri href="{AWAY}"/></font-face-src></font-face>',
    "an image of another file": '<image href="other.png"/>',
    "a use of another file": '<use href="other.svg#a"/>',
    "a use of data": '<use href="data:image/png;base64,AAAA#a"/>',
    "a link": f'<a href="{AWAY}"><rect/></a>',
    "a link with a tab": '<a href="java&#9;script:alert(1)"><rect/></a>',
    "a handler": '<g oNfocusin="alert(1)"/>',
    "an unknown attribute": f'<image srcset="{AWAY}"/>',
    "MathML": '<m:math xmlns:m="http://www.w3.org/1998/Math/MathML"/>',
    "an element in a style sheet": "<style><g/></style>",
    "an event of XML": '<e:listener xmlns:e="http://www.w3.org/2001/xml-events" event="load"/>',
    "a style in the metadata": '<m xmlns="http://ns.adobe.com/x" style="fill:url(a)"/>',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_svg_is_refused_by_name(name: str) -> None:
    with pytest.raises(BrokenImage, match=r"not allowed$") as caught:
        inspect_svg(SVG.format('width="1" height="1"', HOSTILE[name]).encode())
    assert len(str(caught.value)) < 200


ORDINARY = r"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<!-- Created with Inkscape: http://www.inkscape.org/ -->
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" version="1.1" id="Layer_1"
  xmlns:inkscape="http://www.inkscape.org/namespaces/inkscape" xmlns:cc="http://creativecommons.org/ns#"
  xmlns:sodipodi="http://sodipodi.sourceforge.net/DTD/sodipodi-0.dtd" xmlns:dc="http://purl.org/dc/elements/1.1/"
  xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
  viewBox="0 0 64 64" width="64" height="64" xml:space="preserve"
  style="enable-background:new 0 0 64 64; isolation:isolate" preserveAspectRatio="xMidYMid meet" data-name="Cat (black)"
  sodipodi:docname="cat.svg"
  inkscape:export-filename="/home/a/cat.png" aria-label="Cat (black) @ home" role="img">
<title>Cat @ url(home)</title><desc>by vector@example.com</desc>
<metadata><rdf:RDF><cc:Work rdf:about=""><dc:format>image/svg+xml</dc:format><cc:license
  rdf:resource="http://creativecommons.org/licenses/by/4.0/"/></cc:Work></rdf:RDF></metadata>
<sodipodi:namedview id="base" pagecolor="#ffffff" inkscape:zoom="1.4"/>
<style type="text/css"><![CDATA[
  :root{--main:#c0ffee} .st0{fill:url(#SVGID_1_);stroke:#231F20;stroke-width:2.5px}
  .st1:not(.st2):hover{fill:var(--main)}
  .a\:b{opacity:.5;font-family:'Helvetica Neue',Arial}
  @media (min-width: 10px) and (prefers-color-scheme:dark){g{fill:red}}
  @keyframes turn{from{transform:rotate(0deg)} to{transform:rotate(1turn)}}
  .t{animation:turn 1s cubic-bezier(.1,.2,.3,1)}
]]></style>
<defs>
  <linearGradient id="SVGID_1_" gradientUnits="userSpaceOnUse" x1="0" y1="0" x2="64" y2="64" xlink:href="#base"
    gradientTransform="matrix(1 0 0 -1 0 64)"><stop offset="0" style="stop-color:rgb(10,20,30);stop-opacity:1"/>
    <stop offset="100%" stop-color="hsl(120, 50%, 50%)"/></linearGradient>
  <radialGradient id="r" cx="50%" cy="50%" r="50%" fx="1" fy="1"><stop offset="1"/></radialGradient>
  <clipPath id="c" clipPathUnits="userSpaceOnUse"><rect width="64" height="64" rx="4" ry="4"/></clipPath>
  <mask id="m" maskUnits="userSpaceOnUse" mask-type="alpha"><circle cx="1" cy="1" r="1" fill="white"/></mask>
  <pattern id="p" patternUnits="userSpaceOnUse" width="4" height="4" patternTransform="rotate(45)">
    <path d="M0 0h4"/>
  </pattern><marker id="k" markerWidth="4" markerHeight="4" refX="1" refY="1" orient="auto"><path d="M0 0"/></marker>
  <filter id="f" x="-10%" y="-10%" color-interpolation-filters="sRGB">
    <feGaussianBlur in="SourceAlpha" stdDeviation="3"/>
    <feOffset dx="2" dy="2" result="o"/><feFlood flood-color="#000" flood-opacity=".3"/>
    <feComposite in2="o" operator="in"/>
    <feColorMatrix type="matrix" values="0 0 0 0 0  0 0 0 0 0  0 0 0 0 0  0 0 0 .25 0"/>
    <feMerge><feMergeNode/><feMergeNode in="SourceGraphic"/></feMerge></filter>
  <symbol id="s" viewBox="0 0 8 8"><ellipse cx="4" cy="4" rx="3" ry="2"/></symbol>
</defs>
<g clip-path="url(#c)" mask="url('#m')" filter="url( &quot;#f&quot; )" inkscape:label="Layer 1" class="st0 st1"
  transform="translate(10,20) scale(1.5) rotate(45 8 8) skewX(3)" fill-rule="evenodd" stroke-linecap="round">
  <path d="M12.5,3c-1.2,0.4,2.2-1.1,3.1-2z" fill="url(#SVGID_1_) #fff" paint-order="stroke" vector-effect="none"/>
  <polygon points="1,1 2,2 3,1"/><polyline points="1,1 2,2" marker-end="url(#k)"/><line x1="1" y1="1" x2="2" y2="2"/>
  <use xlink:href="#s" x="1" y="1" width="8" height="8"/><use href=" #s "/>
  <text x="1" y="2" font-family="&apos;Inter&apos;, sans-serif" font-size="12" text-anchor="middle" xml:space="preserve"
    letter-spacing="0em"><tspan x="1" dy="1.2em">url(a) @import &lt;script&gt;</tspan>
    <textPath href="#p">x</textPath></text>
  <image width="1" height="1" xlink:href="data:image/png;base64,iVBORw0KGgo=" style="mix-blend-mode:multiply"/>
  <image href="data:image/jpeg;base64,/9j/4AAQ
    SkZJRg==" preserveAspectRatio="none"/><rect style="fill:url(data:image/png;base64,iVBORw0KGgo=)"/>
  <rect width="1" height="1" style="fill:rgba(1,2,3,.5);-inkscape-stroke:none;filter:drop-shadow(0 0 2px #000)">
    <animate attributeName="opacity" values="0;1;0" dur="2s" repeatCount="indefinite" begin="0s"/>
    <animateTransform attributeName="transform" type="rotate" from="0 5 5" to="360 5 5" dur="1s"/>
    <set attributeName="fill" to="url(#r)"/></rect>
  <a href="#top"><switch><g requiredFeatures="" systemLanguage="en"/></switch></a>
</g></svg>
"""


def test_an_ordinary_svg_of_a_vector_model_or_an_editor_is_accepted() -> None:
    info = inspect_svg(ORDINARY.encode())
    assert (info.width, info.height) == (64, 64)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: "<style>" + "a" * 5_000_000 + "</style>",
        lambda: "<style>" + "url(" * 500_000 + "</style>",
        lambda: "<style>url(" + " " * 2_000_000 + "</style>",
        lambda: "<style>" + "url('" * 500_000 + "</style>",
        lambda: "<style>" + "\\75" * 1_000_000 + "</style>",
        lambda: "<style>" + "(" * 2_000_000 + "</style>",
        lambda: '<rect fill="' + "a-" * 1_000_000 + '("/>',
        lambda: "<g/>" * 1_500_000,
        lambda: "<g " + " ".join(f'a{number}=""' for number in range(2_100_000)) + "/>",
        lambda: "<g>" * 300_000,
        lambda: "\n" * 5_000_000,
        lambda: '<image href="' + " " * 2_000_000 + '"/>',
    ],
    ids=range(12),
)
def test_the_check_of_an_svg_is_linear(draw: Callable[[], str]) -> None:
    content = SVG.format('width="1" height="1"', draw()).encode()
    began = time.process_time()
    with contextlib.suppress(BrokenImage):
        inspect_svg(content)
    assert time.process_time() - began < 2.5


@pytest.mark.parametrize(
    "attributes", [f'width="{"9" * 400}" height="1"', f'viewBox="0 0 {"9" * 400} {"9" * 400}" width="1"']
)
def test_an_svg_of_endless_size_is_refused(attributes: str) -> None:
    with pytest.raises(BrokenImage, match="SVG with a side of more than"):
        inspect_svg(SVG.format(attributes, "").encode())


@pytest.mark.parametrize("encoding", ["cp037", "utf-7", "koi8-r", "utf-16"])
def test_an_encoding_that_a_browser_may_read_differently_is_refused(encoding: str) -> None:
    with pytest.raises(BrokenImage):
        inspect_svg(f'<?xml version="1.0" encoding="{encoding}"?>{SVG.format(chr(10), "")}'.encode())
