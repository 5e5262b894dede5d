"""The contenders of `speed.py`: this project and its peers, each in the idiom of its library.

A contender is a class with

    Contender(task, batch, precision, weights)    task: "cifar" or "imagenet"; weights: file of `networks.save`
    train(steps), infer(batches)                  return when the last step or batch is done
    logits(images)                                float32 `[n, 224 or 32, ..., 3]` -> float32 `[n, classes]`
"""
