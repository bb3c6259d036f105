"""A few emoji in packages of the same names, versions and form as those on npm."""

import base64
import hashlib
import io
import json
import tarfile

from miniclip.emoji.sources import NAMES, PACKAGES, STYLES

# code points as chars.json writes them, the icon's name, English and Chinese names, keywords
CAT, DOG, HEART, LION = "1f408", "1f415", "2764-fe0f", "1f981"
FIREMAN, BLOND, PERSON = "1f468-200d-1f692", "1f471-200d-2642-fe0f", "1f471"
NOT_THINGS = {  # variants, which no concept is
    "1f44b-1f3fb": "waving-hand-light-skin-tone",
    "1f1e9-1f1ea": "flag-germany",
    "1f3f4-e0067-e007f": "flag-of-letters",
    "1f9b0": "red-hair",
}
ICONS = {CAT: "cat", DOG: "dog", HEART: "red-heart", LION: "lion", FIREMAN: "man-firefighter"}
NAMED = {
    CAT: ("cat", "猫", ["pet"], ["宠物"]),
    DOG: ("dog", "狗", ["pet", "animal"], ["宠物"]),
    HEART: ("red heart", "红心", ["love"], []),
    LION: ("lion", "狮子", ["face"], ["狮"]),
    FIREMAN: ("man firefighter", "男消防员", ["firetruck"], []),
    "1f44b-1f3fb": ("waving hand: light skin tone", "挥手", [], []),
    "1f1e9-1f1ea": ("flag: Germany", "德国", [], []),
    "1f3f4-e0067-e007f": ("flag: letters", "旗", [], []),
    "1f9b0": ("red hair", "红发", [], []),
}
LISTING = ("noto", "twemoji", "openmoji", "fluent-emoji-flat")
LISTS_TOO = ("fluent-emoji-high-contrast",)
COLOURS = ("red", "green", "blue", "orange", "purple")


def characters(codes):
    return "".join(chr(int(code, 16)) for code in codes.split("-"))


def body(number):
    """Drawn in the left half, so that a flipped one shows."""
    colour = COLOURS[number % len(COLOURS)]
    return f'<path fill="{colour}" d="M1 1h7v{4 + number}h-7z"/>'


def style_files(style):
    """file -> content of a style's package."""
    listed = style.name in LISTING or style.name in LISTS_TOO
    codes = dict(ICONS) | (NOT_THINGS if style.name in LISTING else {})
    if style.name == "fluent-emoji-flat":
        del codes[LION]  # three votes are enough
    if style.name == "twemoji":
        del codes[FIREMAN]
    if style.name == "openmoji":
        del codes[FIREMAN]  # two votes are not
    icons = {name: {"body": body(n)} for n, name in enumerate(codes.values())}
    content = {"prefix": style.name, "icons": icons, "width": 16, "height": 16}
    files = {"icons.json": content, "info.json": {"name": style.name}}
    if listed:
        files["chars.json"] = codes
    groups = {"Animals": ["cat", "dog", "lion"], "Symbols": ["red-heart"]}
    files["metadata.json"] = {"categories": groups}
    return files


def names_content(package, language):
    derived = "derived" in package.name
    at = 0 if language == "en" else 1
    annotations = {}
    for codes, entry in NAMED.items():
        if ("-200d-" in codes or "1f3fb" in codes) == derived:
            annotations[characters(codes)] = {"tts": [entry[at]], "default": entry[2 + at]}
    annotations["\U0001f9ff"] = {"default": ["without a name"]}
    key = "annotationsDerived" if derived else "annotations"
    return {key: {"annotations": annotations}}


def package_files(package, languages=("en", "zh")):
    """file -> bytes of any of the packages."""
    style = next((s for s in STYLES if s.package == package), None)
    files = {"package.json": {"name": package.name, "version": package.version}}
    if style is not None:
        files |= style_files(style)
    else:
        folder = "annotationsDerived" if "derived" in package.name else "annotations"
        for language in languages:
            files[f"{folder}/{language}/annotations.json"] = names_content(package, language)
    found = {name: json.dumps(content).encode() for name, content in files.items()}
    if package in NAMES:
        found["LICENSE"] = b"the licence of the names"
    return found


def write_packages(folder, change=None):
    """All packages, unpacked as npm install leaves them; change(package, files) edits what is
    written."""
    for package in PACKAGES:
        files = package_files(package)
        if change is not None:
            change(package, files)
        for name, data in files.items():
            path = folder / package.name / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return folder


def archive(files):
    """A package as npm publishes it, and its hash as npm writes it."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    data = raw.getvalue()
    return data, "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
