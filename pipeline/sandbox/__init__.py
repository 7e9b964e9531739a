"""An Images API on loopback: no key, no cost, and a second reading of the service's documentation.

It imports nothing of the rest of the program. In the order of the data:

checks       one value under `sandbox:` becomes a checked one, or a sentence that names its key
dialect      a mapping under `sandbox.dialect:` becomes the ways in which this server deviates from OpenAI's
settings     a mapping under `sandbox:` becomes checked settings
refusals     what is wrong with a call becomes an error answer in the service's words
form         the bytes of a request become fields and file parts
parameters   one value of a field becomes a checked parameter
families     what each model takes, as data
rules        fields become an `ImageCall`, or the refusal that the service would give
translation  a call in the server's own dialect becomes OpenAI's, and OpenAI's answer one in the dialect
uploads      file parts become decoded, checked pictures
window       an arrival becomes a place in the strict sliding window, or a wait
faults       a call's number becomes the fault it suffers, the same in every run with the same seed
motifs       random numbers become a composition in shades of grey
renderings   a drawing becomes the bytes of a file: PNG, JPEG, WebP, GIF; a palette becomes an SVG
artist       a sketch becomes the bytes of a picture
spool        uploaded pictures become files, so that a URL can be drawn again after a restart
links        a sketch becomes a signed URL that dies, and a URL becomes its sketch again
usage        a call becomes the tokens that the service would bill
answers      sketches become the JSON or the event stream of a success
books        what was charged becomes lines of a file
calls        a request to make pictures becomes an answer
downloads    a request for a picture's URL becomes its bytes
door         bytes on a socket become requests, and bytes that are no HTTP the same envelope as every refusal
server       requests become answers
"""
