"""What should exist: a job file becomes requests.

job           job YAML → `Job`, its form checked; errors name file, line and field
rows          .csv .tsv .jsonl .txt and matrices → variables
templates     text with {{ variables }} → values
parameters    what one parameter of a call may be
prices        what a call will cost, may cost at most, and did cost
models        what each model family takes and costs, by `models.yaml`
catalogue     models.yaml and the user's own `models:` → `Model`s
recipe        what a job says of its pictures; nothing is decoded
mend          a decoded picture → the shape and colours that a model takes
masks         a file's alpha, black and white, or a box → the mask of a picture
preparation   a source and its recipe → file parts that the API accepts
inputs        prepared pictures, remembered for requests that share them and stored once by hash
identity      what a request asks for → its key and its names
expansion     `Job` → `Draft`s: rows times matrix, every field filled with its variables
pictures      a draft's pictures → `InputFile`s, and what of them enters the key
plan          `Draft`s → `ImageRequest`s, each with its content key; every mistake is found here
"""
