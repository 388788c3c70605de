"""Functions with the signature of `keras.applications`, one for every family of video models."""

from keras_tokenlearner.applications.application import application

ViViTL16 = application(__name__, "ViViTL16", "vivit_l16")
TokenLearnerViViTL16 = application(
    __name__, "TokenLearnerViViTL16", "tokenlearner_vivit_l16_16at12"
)
TokenLearnerViViTL14 = application(
    __name__, "TokenLearnerViViTL14", "tokenlearner_vivit_l14_35_16at18"
)
TokenLearnerViViTL10 = application(
    __name__, "TokenLearnerViViTL10", "tokenlearner_vivit_l10_35_16at18"
)
X2Plus1DM = application(__name__, "X2Plus1DM", "x2plus1d_m")
TokenLearnerX2Plus1DM = application(__name__, "TokenLearnerX2Plus1DM", "tokenlearner_x2plus1d_m")
