"""Who is timed: this project and its peers, each in its own library's idiom, each in a process of its own.

A contender is a class with

    Contender(task, batch, precision, weights)    task: "cifar" or "imagenet"; weights: file of `networks.save`
    train(steps), infer(batches)                  return when the last one is done
    logits(images)                                float32 `[n, 224 or 32, ..., 3]` -> float32 `[n, classes]`
"""
