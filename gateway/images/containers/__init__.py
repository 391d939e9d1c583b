"""What an image file says of itself before its pixels, one file per format.

contract.py  what a header is, what it is read from, and what is raised where it cannot be
reader.py    random access that is counted, so that no file can make the reading long
exif.py      the orientation, as Pillow finds it in EXIF and XMP
png.py, jpeg.py, webp.py, gif.py  the formats that are taken
refused.py   the formats that are known and not taken
"""
