"""The mouth as a layer: lips that part along their seam, and what they open onto.

A smooth warp cannot open lips that touch, for there is nothing between them to show, and it squeezes teeth that are
seen as the lips close. So the face is cut along the seam of the lips: each lip moves by a flow of its own
(:mod:`~atldiff.image.mouth.geometry`), and behind the gap lie a hollow, a tongue and two rows of teeth, drawn from a
few numbers (:mod:`~atldiff.image.mouth.anatomy`) in the light of the portrait
(:mod:`~atldiff.image.mouth.light`), the portrait's own where it shows them (:mod:`~atldiff.image.mouth.atlas`).
:class:`~atldiff.image.mouth.painter.MouthPainter` puts it all into pictures of any resolution.
"""
