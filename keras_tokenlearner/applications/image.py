"""Functions with the signature of `keras.applications`, one for every family of image models."""

from keras_tokenlearner.applications.application import application

ViTS32 = application(__name__, "ViTS32", "vit_s32")
ViTB32 = application(__name__, "ViTB32", "vit_b32")
ViTB16 = application(__name__, "ViTB16", "vit_b16")
ViTL16 = application(__name__, "ViTL16", "vit_l16")
TokenLearnerS32 = application(__name__, "TokenLearnerS32", "tokenlearner_s32_8at6")
TokenLearnerB32 = application(__name__, "TokenLearnerB32", "tokenlearner_b32_8at6")
TokenLearnerB16 = application(__name__, "TokenLearnerB16", "tokenlearner_b16_8at6")
TokenLearnerL16 = application(__name__, "TokenLearnerL16", "tokenlearner_l16_16at12")
TokenLearnerL14 = application(__name__, "TokenLearnerL14", "tokenlearner_l14_35_16at18")
TokenLearnerL10 = application(__name__, "TokenLearnerL10", "tokenlearner_l10_35_16at18")
TokenLearnerL8 = application(__name__, "TokenLearnerL8", "tokenlearner_l8_35_16at18")
