"""Published text networks in Flax: CLIP's text towers, T5's encoder, and BERT-like encoders of sentences.

`open_tower` and `read` give any of them by itself; `sd3` and `sentence` are the text encoders of the config.
"""

from rfjax.encoders.language.tower import Tower as Tower
from rfjax.encoders.language.tower import open_tower as open_tower
from rfjax.encoders.language.tower import read as read
