// N-MNIST files (Orchard, Jayawant, Cohen, Thakor 2015), and framed recordings as a data set.
#include "datasets/events.h"

#include <algorithm>
#include <filesystem>
#include <mutex>

#include "datasets/augment.h"
#include "datasets/recordings.h"
#include "io/bytes.h"

namespace nc {
namespace {

// Events of frames as 2-byte cells (y * W + x) * 2 + p: 0.5 GB for all of N-MNIST at any T.
class EventDataset : public Dataset {
 public:
    EventDataset(const RecordingSource& source, int classes, const Framing& framing)
        : source_(source), classes_(classes), framing_(framing), framed_(source.labels.size()) {
        const bool on_demand = source.simulated && framing.fixed_frames();
        for (size_t i = 0; i < (on_demand ? std::min<size_t>(size(), 1) : size()); ++i)
            most_frames_ = std::max(most_frames_, framed(i).end.size() - 1);
    }

    void set_steps(size_t steps) { steps_ = steps; }
    size_t most_frames() const { return most_frames_; }
    bool same_sensor(const EventDataset& other) const {
        return height_ == other.height_ && width_ == other.width_;
    }

    size_t size() const override { return framed_.size(); }
    Shape sample_shape() const override { return {height_, width_, 2}; }
    int classes() const override { return classes_; }
    int steps() const override { return int(steps_); }
    int32_t label(size_t i) const override { return source_.labels.at(i); }

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
            const Frames& frames = framed(sample);
            for (size_t t = 0; t < std::min(steps_, frames.end.size() - 1); ++t)
                count(frames, t, shift, x + (t * n + i) * frame);
        }
        out.x = counts.to(*compute.allocator);
        return out;
    }

 private:
    struct Frames {
        std::vector<uint16_t> cells;
        std::vector<uint32_t> end;  // frame t is cells [end[t], end[t + 1])
    };

    const Frames& framed(size_t sample) const {
        const std::lock_guard lock(mutex_);
        Frames& out = framed_[sample];
        if (out.end.empty()) out = frame(source_.recording(sample));
        return out;
    }

    Frames frame(const Recording& recording) const {
        constexpr size_t most_cells = size_t(1) << 16;
        if (height_ == 0) {
            height_ = recording.height;
            width_ = recording.width;
            if (height_ * width_ * 2 > most_cells)
                throw Error("[events] a sensor of " + std::to_string(height_) + " x " +
                                std::to_string(width_) + " is too large",
                            ErrorKind::data);
        } else if (recording.height != height_ || recording.width != width_) {
            throw Error("[events] recordings of different sensors", ErrorKind::data);
        }
        const auto bounds = frame_bounds(recording, framing_);
        Frames out;
        for (size_t i = bounds.front(); i < bounds.back(); ++i) {
            const Event& e = recording.events[i];
            out.cells.push_back(uint16_t((e.y * width_ + e.x) * 2 + e.p));
        }
        for (const size_t bound : bounds) out.end.push_back(uint32_t(bound - bounds.front()));
        return out;
    }

    // Adds a frame's events to counts [H, W, 2], moved as the image kernel moves pixels.
    void count(const Frames& frames, size_t t, const kernels::Augment& shift, float* counts) const {
        for (size_t i = frames.end[t]; i < frames.end[t + 1]; ++i) {
            const size_t cell = frames.cells[i], pixel = cell / 2;
            const int64_t y = int64_t(pixel / width_) - shift.y;
            const int64_t x = int64_t(pixel % width_) - shift.x;
            if (y < 0 || y >= int64_t(height_) || x < 0 || x >= int64_t(width_)) continue;
            ++counts[(size_t(y) * width_ + size_t(x)) * 2 + cell % 2];
        }
    }

    RecordingSource source_;
    int classes_;
    Framing framing_;
    mutable size_t height_ = 0, width_ = 0;  // of the first recording
    size_t steps_ = 0, most_frames_ = 0;
    mutable std::mutex mutex_;
    mutable std::vector<Frames> framed_;  // of each sample, once it was asked for
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
