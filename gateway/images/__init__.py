"""The images of a request, and its videos: pipeline/images.py puts these together.

source.py          where an image or a video comes from, and whether that can be taken
videos.py          which files are passed on as videos
addresses.py       where a URL points, and whether images may come from there
fetch.py           the bytes behind a URL
encoded.py         an image as it came, base64 or bytes, read in places
header.py          format, size and orientation from the first bytes
containers/        the formats' own headers, one file each
sized.py           what an image becomes for a model: refused, passed on or shrunk, and its tokens
normalise.py       what is done to an image, known from its header
workers.py         the processes in which images are decoded
pixel_protocol.py  what the gateway and such a process say to one another
pixels.py          what is done to the pixels, in that process
pixel_digest.py    what an image is to an engine, in that process too
digest.py          what an image is known by
shrunk.py          images that were shrunk lately
shared_work.py     work that is done once for all who want the same at the same moment
made.py            what is made of images, once for equal ones
engine_ids.py      the names of images in engines' caches, and the salt
"""
