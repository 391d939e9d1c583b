"""What is made of images in the processes for them, once for equal ones: smaller images, and digests of what is seen."""

from functools import partial
from weakref import WeakKeyDictionary

from gateway.images.digest import Key, PixelDigests, source_digest
from gateway.images.normalise import Damaged, Recipe, Undecodable
from gateway.images.shared_work import SharedWork
from gateway.images.shrunk import ShrunkImages
from gateway.images.sized import Image, SizedImage
from gateway.images.workers import PixelWorkers
from gateway.memory import Share


class MadeImages:
    """What `workers` make: of equal images at the same moment once, and not again while `shrunk` or `digests` keeps it.

    What was made for a request is there for it as long as its share, whatever `shrunk` has room for.
    """

    def __init__(self, workers: PixelWorkers, shrunk: ShrunkImages, digests: PixelDigests) -> None:
        self._workers = workers
        self._shrunk = shrunk
        self._digests = digests
        self._under_way: SharedWork[Key, bytes] = SharedWork()
        self._held: WeakKeyDictionary[Share, dict[Key, bytes]] = WeakKeyDictionary()

    async def shrunk(self, image: Image, recipe: Recipe, share: Share) -> bytes:
        """The base64 of the image that `recipe` makes of `image`, which counts once in `share`, however often it is asked for.

        Raises Undecodable, with a message for the caller. CannotStart, Overloaded.
        """
        key = (image.encoded.digest, str(recipe))
        held = self._held.setdefault(share, {})
        if key not in held:
            made = self._shrunk.get(key)
            if made is None:
                made = await self._under_way.join(key, partial(self._workers.apply, image.encoded.payload, recipe))
                self._shrunk.put(key, made)
            if key not in held:  # an equal image of the same request may have waited for the same
                share.grow(len(made))
                held[key] = made
        return held[key]

    async def pixel_identity(self, sized: SizedImage, share: Share) -> bytes:
        """32 bytes that two images have in common only where a model sees the same of what it gets of them.

        Of an image with a recipe they are the digest of what is sent, which is made for that. Raises as `shrunk` does.
        """
        key = (sized.image.encoded.digest, sized.recipe_text)
        known = self._digests.get(key)
        if known is None:
            known = await self._identified(key, sized, share)
            self._digests.put(key, known)
        return known

    async def _identified(self, key: Key, sized: SizedImage, share: Share) -> bytes:
        if sized.recipe is not None:
            return source_digest(await self.shrunk(sized.image, sized.recipe, share))
        image = sized.image
        try:
            return await self._under_way.join(key, partial(self._workers.identify, image.encoded.payload, image.header))
        except Damaged:
            raise
        except Undecodable:
            return image.encoded.digest  # it took too long, or too much memory: an engine may get it all the same
