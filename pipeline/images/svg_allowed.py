"""What an SVG may contain: the elements, attributes, namespaces and CSS functions that can neither run nor fetch."""

from __future__ import annotations

from typing import Final

SVG: Final = "http://www.w3.org/2000/svg"
XLINK: Final = "http://www.w3.org/1999/xlink"
XML: Final = "http://www.w3.org/XML/1998/namespace"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


EDITORS: Final = (
    "http://www.inkscape.org/namespaces/inkscape",
    "http://sodipodi.sourceforge.net/DTD/sodipodi",
    "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "http://creativecommons.org/ns#",
    "http://web.resource.org/cc/",
    "http://purl.org/dc/",
    "http://ns.adobe.com/",
    "adobe:ns:meta/",
    "http://www.bohemiancoding.com/sketch/ns",
    "http://www.serif.com/",
    "http://www.figma.com/figma/ns",
    "http://svgjs.com/svgjs",
    "http://svgjs.dev/svgjs",
    "https://boxy-svg.com",
    "http://www.vectornator.io",
    "http://c2pa.org/",
)
"""Beginnings of namespaces of metadata, of which no viewer draws an element or reads an attribute."""

ELEMENTS: Final = _words(
    """
    svg g defs symbol use a switch view title desc metadata style path rect circle ellipse line polyline polygon image
    text tspan textPath linearGradient radialGradient stop pattern clipPath mask marker filter solidColor solidcolor
    hatch hatchpath mesh meshGradient meshgradient meshRow meshrow meshPatch meshpatch flowRoot flowRegion flowPara
    flowSpan font font-face font-face-src font-face-name glyph missing-glyph hkern vkern feBlend feColorMatrix
    feComponentTransfer feComposite feConvolveMatrix feDiffuseLighting feDisplacementMap feDistantLight feDropShadow
    feFlood feFuncA feFuncB feFuncG feFuncR feGaussianBlur feImage feMerge feMergeNode feMorphology feOffset
    fePointLight feSpecularLighting feSpotLight feTile feTurbulence animate animateColor animateMotion animateTransform
    mpath set
    """
)

STYLED: Final = _words(
    """
    alignment-baseline backdrop-filter background-color baseline-shift block-progression clip clip-path clip-rule color
    color-interpolation color-interpolation-filters color-profile color-rendering cursor direction display
    dominant-baseline enable-background fill fill-opacity fill-rule filter flood-color flood-opacity font font-family
    font-feature-settings font-kerning font-size font-size-adjust font-stretch font-style font-variant font-variant-caps
    font-variant-ligatures font-variation-settings font-weight glyph-orientation-horizontal glyph-orientation-vertical
    image-rendering inline-size isolation kerning letter-spacing lighting-color line-height line-spacing marker
    marker-end marker-mid marker-start mask mask-mode mask-type mix-blend-mode opacity overflow paint-order
    pointer-events shape-inside shape-padding shape-rendering shape-subtract solid-color solid-opacity stop-color
    stop-opacity stroke stroke-alignment stroke-dasharray stroke-dashoffset stroke-linecap stroke-linejoin
    stroke-miterlimit stroke-opacity stroke-width style tab-size text-align text-anchor text-decoration text-indent
    text-orientation text-overflow text-rendering text-transform transform transform-box transform-origin unicode-bidi
    vector-effect visibility white-space will-change word-spacing writing-mode
    """
)
"""Attributes that are read as CSS."""

PLAIN: Final = _words(
    """
    accumulate additive amplitude ascent attributeName attributeType azimuth baseFrequency baseProfile bbox begin bias
    by calcMode cap-height class clipPathUnits contentScriptType contentStyleType cx cy d descent diffuseConstant
    divisor dur dx dy edgeMode elevation end exponent externalResourcesRequired filterRes focusable filterUnits
    font-name fr from fx fy g1 g2 glyph-name glyphRef gradientTransform gradientUnits height horiz-adv-x horiz-origin-x
    horiz-origin-y id ideographic in in2 intercept k k1 k2 k3 k4 kernelMatrix kernelUnitLength keyPoints keySplines
    keyTimes lang lengthAdjust limitingConeAngle markerHeight markerUnits markerWidth maskContentUnits maskUnits
    mathematical max media method min mode name numOctaves offset operator order orient origin p-id panose-1 path
    pathLength patternContentUnits patternTransform patternUnits points pointsAtX pointsAtY pointsAtZ preserveAlpha
    preserveAspectRatio primitiveUnits r radius refX refY repeatCount repeatDur requiredExtensions requiredFeatures
    restart result role rotate rx ry scale seed slope spacing specularConstant specularExponent spreadMethod startOffset
    stdDeviation stemh stemv stitchTiles strikethrough-position strikethrough-thickness surfaceScale systemLanguage t
    tabindex tableValues targetX targetY textLength title to type u1 u2 underline-position underline-thickness unicode
    unicode-range units-per-em v-alphabetic v-ideographic v-mathematical values version vert-adv-y vert-origin-x
    vert-origin-y viewBox width widths x x-height x1 x2 xChannelSelector y y1 y2 yChannelSelector z zoomAndPan
    """
)
"""Attributes of numbers, names and words."""

PREFIXES: Final = ("data-", "aria-")
"""Beginnings of attributes that only scripts and screen readers read."""

XLINK_WORDS: Final = frozenset({"type", "title", "show", "actuate", "role", "arcrole"})
XML_WORDS: Final = frozenset({"space", "lang", "id"})

ANIMATED: Final = (STYLED | PLAIN) - {"style", "class", "id", "attributeName", "attributeType", "begin", "end", "type"}
"""What an animation may change: no reference, no style sheet."""

ANIMATIONS: Final = frozenset({"animate", "animateColor", "animateMotion", "animateTransform", "set"})
ANIMATION_VALUES: Final = frozenset({"from", "to", "by", "values"})

CSS_FUNCTIONS: Final = _words(
    """
    url rgb rgba hsl hsla hwb lab lch oklab oklch color color-mix gray device-cmyk icc-color var calc min max clamp
    matrix matrix3d rotate rotate3d rotatex rotatey rotatez scale scale3d scalex scaley scalez skew skewx skewy
    translate translate3d translatex translatey translatez perspective cubic-bezier steps linear blur brightness
    contrast drop-shadow grayscale hue-rotate invert opacity saturate sepia circle ellipse inset polygon path not is
    where has nth-child nth-last-child nth-of-type nth-last-of-type lang and or
    """
)
CSS_RULES: Final = frozenset({"media", "keyframes", "-webkit-keyframes", "supports", "layer"})
