"""Uses a trained network as a feature extractor: a linear classifier on its pooled features, without training it.

python examples/extract_features.py NETWORK     # a run directory, a .keras file, an export, or a name
"""

import sys

import keras
from sklearn.linear_model import LogisticRegression

import allconv_resnet as acr


def main(network):
    model = acr.load(network)
    extractor = keras.Model(model.input, model.get_layer("pool").output)
    source = acr.load_data("digits")

    def features(split):
        images, labels = source.arrays(split)
        return extractor.predict(acr.standardize(images), batch_size=256, verbose=0), labels

    classifier = LogisticRegression(max_iter=1000).fit(*features("train"))
    return classifier.score(*features("test"))


if __name__ == "__main__":
    print(f"test accuracy of a linear classifier on the features: {main(sys.argv[1]):.1%}")
