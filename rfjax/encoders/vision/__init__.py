"""Published Vision Transformers as frozen encoders: DINO, DINOv2, DINOv3, MAE, I-JEPA, CLIP, SigLIP, MoCo v3."""

from rfjax.encoders.vision.encoder import VisionEncoder as VisionEncoder
from rfjax.encoders.vision.encoder import features as features
from rfjax.encoders.vision.encoder import make as make
from rfjax.encoders.vision.encoder import open_encoder as open_encoder
