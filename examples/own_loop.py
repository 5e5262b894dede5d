"""A training loop of one's own: batches of the recipe, a gradient tape, the optimizer, and evaluation at the end.

python examples/own_loop.py
"""

import tensorflow as tf

import allconv_resnet as acr


def main(steps=150):
    recipe = acr.recipes.DIGITS  # it says which batches: their size, their order and their augmentation
    source = acr.load_data("digits")
    stages = [acr.Stage(1, 32, 2), acr.Stage(1, 64, 2)]
    model = acr.AllConvResNet((32, 32, 3), 10, stem=(16, 3, 2, 1), stages=stages, initialization="he")
    optimizer = acr.Momentum(acr.StepDecay(0.05, [100], 0.1), momentum=0.9, weight_decay=1e-4, global_clipnorm=1.0)

    @tf.function
    def train_step(images, labels):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    for step, batch in enumerate(source.training_batches(recipe).take(steps), start=1):
        loss = train_step(*batch)
        if step % 50 == 0:
            print(f"step {step}: loss {loss:.3f}")

    right = sum(
        int(tf.reduce_sum(tf.cast(tf.argmax(model(images, training=False), axis=1) == labels, tf.int32)))
        for images, labels, _ in source.evaluation_batches("test", recipe)
    )
    return right / source.examples("test")


if __name__ == "__main__":
    print(f"test accuracy {main():.1%}")
