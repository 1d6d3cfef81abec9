// Samples and how they become batches: images as bytes, event recordings as frames.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/compute.h"
#include "engine/random.h"
#include "kernels/kernels.h"

namespace nc {

struct Batch {
    Tensor x;  // [N, H, W, C], or [T, N, H, W, C] when temporal
    std::vector<int32_t> labels;
    bool temporal = false;
};

// Training-time augmentation; the default is none.
struct AugmentOptions {
    int crop = 0;  // zero padding, then a random crop back to size
    bool flip = false;
    int cutout = 0;  // side of the square
    int shift =
        0;  // random translation by up to this many pixels (the same as crop; for events too)
    bool auto_augment = false;  // CIFAR-10 policy; 3-channel bytes only
    bool any() const { return crop > 0 || flip || cutout > 0 || shift > 0 || auto_augment; }
};

class Dataset {
 public:
    virtual ~Dataset() = default;
    virtual size_t size() const = 0;
    virtual Shape sample_shape() const = 0;  // [H, W, C]
    virtual int classes() const = 0;
    virtual int steps() const { return 0; }  // T of temporal data, 0 for static
    virtual int32_t label(size_t i) const = 0;
    // These samples, normalised. random is drawn from only when options ask for augmentation; a
    // sample's draws depend on its place in the batch only, not on threads. x is where Compute
    // works; image data sets then stay there, as bytes. From several threads at a time.
    virtual Batch batch(Compute&, const std::vector<uint32_t>& indices,
                        const AugmentOptions& options, Random& random) const = 0;
};

// Images held as bytes [N, H, W, C]; x = (byte / 255 - mean) / std.
std::unique_ptr<Dataset> image_dataset(std::vector<uint8_t> images, std::vector<int32_t> labels,
                                       const Shape& sample, int classes, std::vector<float> mean,
                                       std::vector<float> std);
// Vectors x [N, F], as they are. They know no augmentation: an Error.
std::unique_ptr<Dataset> vector_dataset(const Tensor& x, std::vector<int32_t> labels, int classes);
// The samples `indices` of another data set, which must outlive it.
std::unique_ptr<Dataset> subset(const Dataset&, std::vector<uint32_t> indices);

// What the programs load by name.
struct DataRequest {
    std::string name;              // of dataset_names()
    std::string root;              // --data; empty: NC_DATA, then the places Debian's packages use
    int T = 0;                     // bins of recordings when framing is empty (0: 16)
    std::string framing;           // "tonic:bins=10", ...
    std::vector<float> mean, std;  // empty: the data set's own
};
struct DataSets {
    std::unique_ptr<Dataset> train, test;
    std::vector<float> mean, std;  // that were used
    std::string framing;           // that was used
    std::string note;              // "subset: 1000 + 100 recordings", or empty
};
// Error (kind data): unknown name (with a suggestion), missing files (with the fetch command),
// wrong magic, truncated, counts of labels and images that differ, labels out of range; each names
// the file.
DataSets load_data(const DataRequest&);
std::vector<std::string> dataset_names();

// At most `samples` of the training data (0: all), drawn and ordered by the seed. Programs split
// what this gives: with the same seed and samples a conversion then validates on what the network
// that it was given has not been trained on.
std::unique_ptr<Dataset> drawn(const Dataset&, size_t samples, uint64_t seed);

// The seeded split: the last 5000 of the shuffle are for validation; 10 %
// below 50 000 samples.
struct Split {
    std::vector<uint32_t> train, validation;
};
Split validation_split(size_t size, uint64_t seed);

// Batches of an epoch in a seeded order, made ahead on a thread. The sequence depends on seed and
// epoch only.
class Loader {
 public:
    // shuffle false: in order, no augmentation. The last, smaller batch is kept unless drop_last.
    // Starts at batch `first`. Batches are where `compute` works, which the thread leaves alone;
    // without one on the host.
    Loader(const Compute& compute, const Dataset&, size_t batch_size, bool shuffle, uint64_t seed,
           int epoch, const AugmentOptions&, bool drop_last = false, size_t first = 0);
    Loader(const Dataset&, size_t batch_size, bool shuffle, uint64_t seed, int epoch,
           const AugmentOptions&, bool drop_last = false, size_t first = 0);
    ~Loader();
    size_t batches() const;
    bool next(Batch& out);  // false at the end; rethrows what the thread threw

 private:
    Loader(const Compute* where, const Dataset&, size_t batch_size, bool shuffle, uint64_t seed,
           int epoch, const AugmentOptions&, bool drop_last, size_t first);
    struct Worker;
    std::unique_ptr<Worker> worker_;
};

}  // namespace nc
