"""Compares how many crops of real JPEG files per second this project and common libraries decode on one core.

    pip install -e '.[bench]'
    python benchmarks/imagenet_input.py --data-dir ../shared/tfds

All get the same files and the same windows of the random-resized crop. They take turns in this process on one core,
and deliver float32 batches of 20 images of 224x224x3 pixels. The files are in memory. The processor time of all threads
of this process is measured, so that other work on the machine does not count.

    ours     data/jpeg.py: decodes only the window, and libjpeg shrinks it if it is at least twice as large
    tf.image decodes the whole image, crops, resizes (bilinear)
    opencv   cv2.imdecode, BGR to RGB, crop, cv2.resize (bilinear)
    pillow   Image.open, convert, Image.resize(box=) (bilinear, which in Pillow averages when it shrinks)
    imagecodecs  jpeg8_decode, crop, cv2.resize (bilinear)
    simplejpeg   decode_jpeg, which shrinks the image to no less than what the window needs, crop, cv2.resize (bilinear)

The last line is the whole pipeline (records, shuffling, crops, flips, standardization, batches of 256), on that core.
What is made ahead is made before each measurement and before its end, so that every image is counted once.
"""

import argparse
import io
import os
import statistics
import time

import numpy as np
import tensorflow as tf
from harness import spread, write_figures

from allconv_resnet.data import jpeg, orientation, pipeline, records
from allconv_resnet.data.source import load_data
from allconv_resnet.recipes import IMAGENET

SIZE = IMAGENET.data.image_size[:2]
BATCH = 20
AHEAD = 5.0  # seconds in which the pipeline makes all batches that it may make ahead


def core_seconds(function):
    began = time.process_time()
    function()
    return time.process_time() - began


def on_one_thread(dataset):
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    return dataset.with_options(options)


def with_tensorflow(decode, contents, windows):
    """Returns a function that decodes all files in tf.data."""
    dataset = tf.data.Dataset.from_tensor_slices((contents, windows)).map(decode).batch(BATCH)
    dataset = pipeline.untuned(on_one_thread(dataset))

    def run():
        for _ in dataset:
            pass

    return run


def ours(contents, windows):
    """Returns a function that decodes all files as training does: it finds the orientations of many files at once."""

    def decode(content, window, turned):
        return jpeg.decode_window(content, window, SIZE, 3, jpeg.header(content, turned))

    contents = tf.constant(contents)
    orientations = tf.function(orientation.orientation).get_concrete_function(contents)
    files = tf.data.Dataset.from_tensor_slices((contents, windows, orientations(contents)))
    dataset = pipeline.untuned(on_one_thread(files.map(decode).batch(BATCH)))

    def run():
        orientations(contents)
        for _ in dataset:
            pass

    return run


def tf_image(content, window):
    image = tf.io.decode_jpeg(content, channels=3)
    return tf.image.resize(tf.image.crop_to_bounding_box(image, *tf.unstack(window)), SIZE)


def with_python(decode, contents, windows):
    """Returns a function that decodes all files in a Python loop, like a worker of a data loader."""
    batch = np.empty((BATCH, *SIZE, 3), np.float32)

    def run():
        for i, pair in enumerate(zip(contents, windows, strict=True)):
            batch[i % BATCH] = decode(*pair)

    return run


def opencv(content, window):
    import cv2

    top, left, height, width = window
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    image = cv2.resize(image[top : top + height, left : left + width], SIZE[::-1])
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def imagecodecs(content, window):
    import cv2
    from imagecodecs import jpeg8_decode

    top, left, height, width = window
    return cv2.resize(jpeg8_decode(content, outcolorspace="RGB")[top : top + height, left : left + width], SIZE[::-1])


def simplejpeg(content, window):
    import cv2
    from simplejpeg import decode_jpeg, decode_jpeg_header

    shape = np.array(decode_jpeg_header(content)[:2])
    least = np.maximum(1, np.ceil(shape * np.minimum(1, SIZE / window[2:]))).astype(int).tolist()
    image = decode_jpeg(content, "RGB", min_height=least[0], min_width=least[1], min_factor=1)
    corner, size = np.split(np.round(window * np.tile(image.shape[:2] / shape, 2)).astype(int), 2)
    return cv2.resize(image[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]], SIZE[::-1])


def pillow(content, window):
    from PIL import Image

    top, left, height, width = window.tolist()
    image = Image.open(io.BytesIO(content)).convert("RGB")
    return np.asarray(image.resize(SIZE[::-1], Image.Resampling.BILINEAR, (left, top, left + width, top + height)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

    data = load_data("imagenet2012", options.data_dir)
    examples = records.read_records(data.share("train", 0, 1)[0], [0]).take(options.images)
    contents = [tf.io.parse_single_example(record, records.FIELDS)["image"].numpy() for record in examples]
    shapes = [tf.io.extract_jpeg_shape(content) for content in contents]
    windows = np.stack(
        [jpeg.random_window(shape, IMAGENET.data.smallest_crop, [0, i]) for i, shape in enumerate(shapes)]
    )
    ways = {
        "ours": ours(contents, windows),
        "tf.image": with_tensorflow(tf_image, contents, windows),
        "opencv": with_python(opencv, contents, windows),
        "pillow": with_python(pillow, contents, windows),
        "imagecodecs": with_python(imagecodecs, contents, windows),
        "simplejpeg": with_python(simplejpeg, contents, windows),
    }
    for run in ways.values():
        run()  # warms up
    rates = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, run in ways.items():
            rates[name].append(len(contents) / core_seconds(run))
    batches = iter(on_one_thread(data.training_batches(IMAGENET)))

    def whole_pipeline():
        for _ in range(4):
            next(batches)
        time.sleep(AHEAD)

    whole_pipeline()  # not in turn with the others, since it prefetches
    rates["whole pipeline"] = [4 * IMAGENET.run.batch_size / core_seconds(whole_pipeline) for _ in range(5)]
    for name, values in rates.items():
        print(f"{name:16}" + "min {min:7.0f}   median {median:7.0f}   max {max:7.0f} images/s".format(**spread(values)))
    peers = [name for name in ways if name != "ours"]
    ratios = {
        peer: spread([ours / theirs for ours, theirs in zip(rates["ours"], rates[peer], strict=True)]) for peer in peers
    }
    for peer, ratio in ratios.items():
        print(f"ours / {peer:12}" + "min {min:.2f}   median {median:.2f}   max {max:.2f}   (n = {n})".format(**ratio))
    best = max(peers, key=lambda peer: statistics.median(rates[peer]))
    write_figures(
        "imagenet_input",
        {
            "images": len(contents),
            "cores": 1,
            "images_per_second": {name: spread(values) for name, values in rates.items()},
            "ours_over": ratios,
            "best_peer": best,
        },
    )


if __name__ == "__main__":
    main()
