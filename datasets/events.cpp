// N-MNIST files (Orchard, Jayawant, Cohen, Thakor 2015), and framed recordings as a data set.
#include "datasets/events.h"

#include <algorithm>
#include <filesystem>

#include "datasets/augment.h"
#include "datasets/recordings.h"
#include "io/bytes.h"

namespace nc {
namespace {

// Events of frames as 2-byte cells (y * W + x) * 2 + p: 0.5 GB for all of N-MNIST at any T.
class EventDataset : public Dataset {
 public:
    EventDataset(const RecordingSource& source, int classes, const Framing& framing)
        : labels_(source.labels), classes_(classes) {
        for (size_t i = 0; i < labels_.size(); ++i) add(source.recording(i), i, framing);
    }

    void set_steps(size_t steps) { steps_ = steps; }
    size_t most_frames() const { return most_frames_; }
    bool same_sensor(const EventDataset& other) const {
        return height_ == other.height_ && width_ == other.width_;
    }

    size_t size() const override { return labels_.size(); }
    Shape sample_shape() const override { return {height_, width_, 2}; }
    int classes() const override { return classes_; }
    int steps() const override { return int(steps_); }
    int32_t label(size_t i) const override { return labels_.at(i); }

    Batch batch(Compute& compute, const std::vector<uint32_t>& indices,
                const AugmentOptions& options, Random& random) const override {
        if (options.flip || options.cutout > 0 || options.auto_augment)
            throw Error("[events] of the augmentations only shift and crop fit recordings");
        const size_t n = indices.size(), frame = height_ * width_ * 2;
        Batch out;
        out.temporal = true;
        Tensor counts({steps_, n, height_, width_, 2});  // on the host
        counts.zero();
        float* x = counts.data<float>();
        for (size_t i = 0; i < n; ++i) {
            const size_t sample = indices[i];
            out.labels.push_back(label(sample));
            const kernels::Augment shift = draw_augment(options, sample_shape(), 0, random);
            const size_t first = first_frame_[sample];
            const size_t frames = std::min(steps_, first_frame_[sample + 1] - first);
            for (size_t t = 0; t < frames; ++t) count(first + t, shift, x + (t * n + i) * frame);
        }
        out.x = counts.to(*compute.allocator);
        return out;
    }

 private:
    void add(const Recording& recording, size_t sample, const Framing& framing) {
        constexpr size_t most_cells = size_t(1) << 16;
        if (sample == 0) {
            height_ = recording.height;
            width_ = recording.width;
            if (height_ * width_ * 2 > most_cells)
                throw Error("[events] a sensor of " + std::to_string(height_) + " x " +
                                std::to_string(width_) + " is too large",
                            ErrorKind::data);
        } else if (recording.height != height_ || recording.width != width_) {
            throw Error("[events] recordings of different sensors", ErrorKind::data);
        }
        const auto bounds = frame_bounds(recording, framing);
        most_frames_ = std::max(most_frames_, bounds.size() - 1);
        for (size_t f = 0; f + 1 < bounds.size(); ++f) {
            for (size_t i = bounds[f]; i < bounds[f + 1]; ++i) {
                const Event& e = recording.events[i];
                cells_.push_back(uint16_t((e.y * width_ + e.x) * 2 + e.p));
            }
            frame_end_.push_back(cells_.size());
        }
        first_frame_.push_back(frame_end_.size() - 1);
    }

    // Adds a frame's events to counts [H, W, 2], moved as the image kernel moves pixels.
    void count(size_t frame, const kernels::Augment& shift, float* counts) const {
        for (size_t i = frame_end_[frame]; i < frame_end_[frame + 1]; ++i) {
            const size_t cell = cells_[i], pixel = cell / 2;
            const int64_t y = int64_t(pixel / width_) - shift.y;
            const int64_t x = int64_t(pixel % width_) - shift.x;
            if (y < 0 || y >= int64_t(height_) || x < 0 || x >= int64_t(width_)) continue;
            ++counts[(size_t(y) * width_ + size_t(x)) * 2 + cell % 2];
        }
    }

    std::vector<int32_t> labels_;
    int classes_;
    size_t height_ = 0, width_ = 0, steps_ = 0, most_frames_ = 0;
    std::vector<uint16_t> cells_;            // of all frames of all samples
    std::vector<size_t> frame_end_ = {0};    // frame f is cells [frame_end_[f], frame_end_[f + 1])
    std::vector<size_t> first_frame_ = {0};  // [samples + 1]
};

}  // namespace

Recording parse_nmnist(const std::vector<uint8_t>& file, const std::string& path, size_t height,
                       size_t width) {
    return read_recording(Source(file.data(), file.size(), path), {"nmnist", width, height});
}

RecordingSource nmnist_source(const std::string& folder) {
    namespace fs = std::filesystem;
    struct Item {
        std::string name, path;
        int32_t label;
    };
    std::vector<Item> items;
    std::error_code error;
    const auto list = [&](const fs::path& path) {
        std::vector<fs::path> out;
        for (auto at = fs::directory_iterator(path, error); !error && at != fs::end(at);
             at.increment(error))
            if (at->path().filename().string()[0] != '.') out.push_back(at->path());
        if (error)
            throw Error("[nmnist] " + path.string() + ": " + error.message(), ErrorKind::data,
                        "datasets/fetch.sh nmnist");
        return out;
    };
    for (const auto& path : list(folder)) {
        const std::string digit = path.filename().string();
        if (digit.size() != 1 || digit[0] < '0' || digit[0] > '9')
            throw Error("[nmnist] " + path.string() + " is not a class 0 .. 9", ErrorKind::data);
        for (const auto& file : list(path))
            if (file.extension() == ".bin")
                items.push_back({file.filename().string(), file.string(), digit[0] - '0'});
    }
    if (items.empty())
        throw Error("[nmnist] " + folder + " has no <class>/<name>.bin", ErrorKind::data,
                    "datasets/fetch.sh nmnist");
    std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
        return std::tie(a.name, a.path) < std::tie(b.name, b.path);
    });
    RecordingSource out;
    std::vector<std::string> paths;
    for (const auto& item : items) {
        out.labels.push_back(item.label);
        paths.push_back(item.path);
    }
    out.recording = [paths = std::move(paths)](size_t i) {
        return read_recording(Source(paths[i]), {"nmnist"});
    };
    return out;
}

EventDataSets event_datasets(const RecordingSource& train, const RecordingSource& test, int classes,
                             const Framing& framing) {
    auto first = std::make_unique<EventDataset>(train, classes, framing);
    auto second = std::make_unique<EventDataset>(test, classes, framing);
    if (!first->same_sensor(*second))
        throw Error("[events] training and test recordings of different sensors", ErrorKind::data);
    const size_t steps = std::max(first->most_frames(), second->most_frames());
    first->set_steps(steps);
    second->set_steps(steps);
    return {std::move(first), std::move(second)};
}

}  // namespace nc
