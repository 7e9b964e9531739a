"""Jobs with one mistake each, as people make them: for what is said of it, and of which line."""

from __future__ import annotations

EDIT = "requests:\n- operation: edit\n  image: images/mask.png\n  prompt: x\n"
MODERN = "requests:\n- prompt: x\n  model: gpt-image-2\n"

BROKEN_JOBS = {
    # keys of the job
    "no requests": "name: a\nprovider: sandbox\n",
    "requests is empty": "name: a\nrequests: []\n",
    "requests is a mapping": "name: a\nrequests: {prompt: x}\n",
    "requests is misspelt": "request:\n- prompt: x\n",
    "a request is a text": "requests:\n- prompt: x\n- a white cat\n",
    "a name with a space": "requests:\n- prompt: x\nname: my night\n",
    "a name of a file of ours": "requests:\n- prompt: x\nname: ledger-2\n",
    "a provider is a number": "requests:\n- prompt: x\nprovider: 3\n",
    "a mode that is none": "requests:\n- prompt: x\nmode: fast\n",
    "a deadline without auto": 'requests:\n- prompt: x\ndeadline: "07:00"\n',
    "a deadline that is none": "requests:\n- prompt: x\nmode: auto\ndeadline: tomorrow\n",
    "a budget below zero": "requests:\n- prompt: x\nbudget_usd: -1\n",
    "a budget in words": "requests:\n- prompt: x\nbudget_usd: five\n",
    "a parameter at the top": "requests:\n- prompt: x\nsize: 1024x1024\n",
    "an unknown key at the top": "requests:\n- prompt: x\nretries: 3\n",
    "defaults is a list": "defaults: [a]\nrequests:\n- prompt: x\n",
    # keys of requests
    "prompt is misspelt": "requests:\n- prompt: y\n- id: b\n  promt: x\n",
    "operation is misspelt": "requests:\n- prompt: x\n- operatoin: generation\n  prompt: y\n",
    "an operation that is none": "requests:\n- prompt: x\n  operation: inpaint\n",
    "n is zero": "requests:\n- prompt: x\n  n: 0\n",
    "n in quotes": 'requests:\n- prompt: x\n  n: "2"\n',
    "n is a fraction": "requests:\n- prompt: x\n  n: 1.5\n",
    "stream": "requests:\n- prompt: x\n  stream: true\n",
    "an id in defaults": "defaults:\n  model: dall-e-2\n  id: a\nrequests:\n- prompt: x\n",
    "a provider in a request": "requests:\n- prompt: x\n  provider: openai\n",
    "an id that names no file": "requests:\n- prompt: x\n  id: a/b\n",
    "no prompt": "requests:\n- prompt: x\n- n: 2\n",
    "an empty prompt": 'requests:\n- prompt: x\n- id: a\n  prompt: " "\n',
    "a matrix of one text": "requests:\n- prompt: x {{ a }}\n  matrix:\n    a: cat\n",
    "a variable without a matrix": "requests:\n- n: 1\n  prompt: a {{ animal }}\n",
    "a mask of generations in defaults": "defaults:\n  n: 1\n  mask: images/mask.png\nrequests:\n- prompt: x\n",
    "an edge that is too long": f"{EDIT}  resize: 9000x512\n",
    "an empty list in a matrix": "requests:\n- prompt: x {{ a }}\n  matrix:\n    b: [1]\n    a: []\n",
    "rows is empty": 'requests:\n- prompt: x\n  rows: ""\n',
    "rows of a workbook": "requests:\n- prompt: x\n  rows: prompts.xlsx\n",
    "extra is a list": "requests:\n- prompt: x\n  extra: [seed]\n",
    "a prompt in extra": "requests:\n- prompt: x\n  extra:\n    seed: 1\n    prompt: y\n",
    # images
    "an edit without an image": "requests:\n- prompt: x\n- prompt: y\n  operation: edit\n",
    "an image of a generation": "requests:\n- prompt: x\n  image: images/sunlit_lounge.png\n",
    "a mask of a generation": "requests:\n- prompt: x\n  mask: images/mask.png\n",
    "an image by URL": "requests:\n- operation: edit\n  prompt: x\n  image: https://example.org/x.png\n",
    "a fit that is none": f"{EDIT}  fit: shrink\n",
    "a size of an image in words": f"{EDIT}  resize: small\n",
    "a mask with an unknown key": f"{EDIT}  mask: {{file: images/mask.png}}\n",
    "a mask of three edges": f"{EDIT}  mask: {{box: [1, 2, 3]}}\n",
    # parameters of a model
    "a size that the model lacks": "requests:\n- prompt: x\n  model: dall-e-3\n  size: 512x512\n",
    "a size of too few pixels": f"{MODERN}  size: 512x512\n",
    "a size of odd edges": f"{MODERN}  size: 1000x1000\n",
    "a size in defaults": "defaults:\n  model: gpt-image-1\n  size: 512x512\nrequests:\n- prompt: x\n",
    "a quality of another model": "defaults: {model: gpt-image-2}\nrequests:\n- prompt: x\n  quality: hd\n",
    "a quality of another model in defaults": f"defaults:\n  quality: hd\n{MODERN}",
    "a parameter of another model": f"{MODERN}  style: vivid\n",
    "a response format that is refused": "requests:\n- prompt: x\n  model: gpt-image-1\n  response_format: url\n",
    "a parameter that nobody has": "requests:\n- prompt: x\n  model: dall-e-2\n  steps: 20\n",
    "a compression beyond its range": f"{MODERN}  output_format: webp\n  output_compression: 150\n",
    "a compression of PNG": f"{MODERN}  output_compression: 50\n",
    "transparent JPEG": f"{MODERN}  output_format: jpeg\n  background: transparent\n",
    "an edit by a model without": f"{EDIT}  model: dall-e-3\n",
    "a variation with a prompt": f"{EDIT}  model: dall-e-2\n".replace("edit", "variation"),
    "a user that is a number": f"{MODERN}  user: 5\n",
    "a prompt that is too long": f"requests:\n- model: dall-e-2\n  prompt: {'x' * 1001}\n",
    "too many images": "requests:\n- {operation: edit, prompt: x, model: dall-e-2}\n".replace(
        "}", ", image: [images/mask.png, b.png]}"
    ),
    "moderation of an edit": f"{EDIT}  model: gpt-image-2\n  moderation: low\n",
}
"""What is wrong, and the text of the job. The mistake is the only one."""
