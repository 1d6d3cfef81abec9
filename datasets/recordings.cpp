// From a recording to events in time order, and from those to a file of frames.
#include "datasets/recordings.h"

#include <algorithm>
#include <filesystem>

#include "datasets/event_formats.h"

namespace nc {
namespace {

struct Format {
    const char* name;
    void (*open)(EventFile&);
};
constexpr Format formats[] = {
    {"nmnist", open_nmnist}, {"aedat2", open_aedat2}, {"aedat3", open_aedat3}, {"evt2", open_evt2},
    {"evt3", open_evt3},     {"dat", open_dat},       {"npy", open_npy},       {"npz", nullptr}};

const char* const readable =
    "read are N-MNIST .bin, AEDAT 2.0 and 3.1, Prophesee RAW (EVT2, EVT3) and .dat, .npy and .npz; "
    "--format NAME where a file does not show which it is";

bool earlier(const Event& a, const Event& b) {
    return a.t < b.t;
}

// What a Prophesee header says: "% evt 3.0", "% format EVT3;...", "% Data file containing ...".
std::string prophesee_format(const Source& source, const std::string& extension) {
    ByteStream in(source);
    for (const uint8_t* b; (b = in.peek(2)) && b[0] == '%';) {
        const std::string line = in.line();
        if (line.rfind("% end", 0) == 0) break;
        if (line.rfind("% Data file", 0) == 0) return "dat";
        for (const std::string key : {"% evt ", "% format "}) {
            if (line.rfind(key, 0) != 0) continue;
            const std::string value =
                line.substr(key.size(), line.find_first_of(";\r\n") - key.size());
            if (value == "2.0" || value == "EVT2") return "evt2";
            if (value == "3.0" || value == "EVT3") return "evt3";
            throw Error("[" + source.path() + "] event format '" + value + "' is not EVT2 or EVT3",
                        ErrorKind::data);
        }
    }
    if (extension == ".dat") return "dat";
    throw Error("[" + source.path() + "] the header names no event format", ErrorKind::data,
                "--format evt2, evt3 or dat");
}

void check_sensor(const EventStream& stream, const Source& source, const Extent& extent,
                  size_t largest_x, size_t largest_y) {
    if (extent.events == 0) throw Error("[" + source.path() + "] no events", ErrorKind::data);
    if (stream.width() > 0 && stream.height() > 0) return;
    throw Error("[" + source.path() + "] the sensor's size is not in the file", ErrorKind::data,
                "--sensor WIDTHxHEIGHT; the events reach x = " + std::to_string(largest_x) +
                    ", y = " + std::to_string(largest_y));
}

}  // namespace

std::vector<std::string> recording_formats() {
    std::vector<std::string> out;
    for (const Format& format : formats) out.push_back(format.name);
    return out;
}

std::string format_of(const Source& source) {
    std::string head(size_t(std::min<uint64_t>(source.size(), 12)), '\0');
    source.read(0, reinterpret_cast<uint8_t*>(head.data()), head.size());
    const auto starts = [&](const std::string& text) { return head.rfind(text, 0) == 0; };
    std::string extension = std::filesystem::path(source.path()).extension().string();
    for (char& c : extension) c = c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
    if (starts("\x93NUMPY")) return "npy";
    if (starts("PK\x03\x04") || starts("PK\x05\x06")) return "npz";
    if (extension == ".bin") return "nmnist";
    if (starts("#!AER-DAT2")) return "aedat2";
    if (starts("#!AER-DAT3.1")) return "aedat3";
    if (starts("#!AER-DAT"))
        throw Error("[" + source.path() + "] AEDAT " + head.substr(9) + " is not 2.0 or 3.1",
                    ErrorKind::data, readable);
    if (starts("%")) return prophesee_format(source, extension);
    if (extension == ".dat") return "dat";
    throw Error("[" + source.path() + "] not an event recording that can be recognised",
                ErrorKind::data, readable);
}

EventStream::EventStream(const Source& source, const RecordingOptions& options)
    : within_(options.denoise) {
    const std::string name = options.format.empty() ? format_of(source) : options.format;
    const auto format = std::find_if(std::begin(formats), std::end(formats),
                                     [&](const Format& f) { return name == f.name; });
    if (format == std::end(formats))
        throw Error("[recording] unknown format '" + name + "'", ErrorKind::usage,
                    suggestion(name, recording_formats()));
    if (options.width > largest_side || options.height > largest_side)
        throw Error("[recording] a sensor of " + std::to_string(options.width) + " x " +
                    std::to_string(options.height) + " is too large");
    file_.reset(new EventFile{ByteStream(source), options.width, options.height});
    if (format->open)
        format->open(*file_);
    else
        open_npz(*file_, source);
    if (within_ > 0 && width() > 0 && height() > 0) fired_.assign(width() * height(), INT64_MIN);
}

EventStream::~EventStream() = default;

size_t EventStream::width() const {
    return file_->width;
}
size_t EventStream::height() const {
    return file_->height;
}
const std::string& EventStream::description() const {
    return file_->description;
}

bool EventStream::next(std::vector<Event>& block) {
    constexpr size_t window = size_t(1) << 20;  // events kept for earlier ones to come
    block.clear();
    while (block.empty() && !(ended_ && waiting_.empty())) {
        while (!ended_ && waiting_.size() < 2 * window) {
            const size_t before = waiting_.size();
            ended_ = !file_->decode(*file_, waiting_);
            const auto from = waiting_.begin() + ptrdiff_t(before > 0 ? before - 1 : 0);
            sorted_ &= std::is_sorted(from, waiting_.end(), earlier);
        }
        if (!sorted_) std::stable_sort(waiting_.begin(), waiting_.end(), earlier);
        sorted_ = true;
        const size_t ready = ended_ ? waiting_.size() : waiting_.size() - window;
        if (ready > 0 && waiting_.front().t < given_)
            throw Error("[" + file_->in.path() + "] an event at " +
                            std::to_string(waiting_.front().t) + " us comes more than " +
                            std::to_string(window) + " events after one at " +
                            std::to_string(given_) + " us: too far out of order",
                        ErrorKind::data);
        block.assign(waiting_.begin(), waiting_.begin() + ptrdiff_t(ready));
        waiting_.erase(waiting_.begin(), waiting_.begin() + ptrdiff_t(ready));
        if (!block.empty()) given_ = block.back().t;
        if (!fired_.empty()) denoise(block);
    }
    return !block.empty();
}

// An event stays when one of its four neighbours fired less than `within_` before it.
void EventStream::denoise(std::vector<Event>& block) {
    const size_t w = width(), h = height();
    const auto noise = [&](const Event& e) {
        int64_t* at = fired_.data() + e.y * w + e.x;
        *at = e.t + within_;
        return !((e.x > 0 && at[-1] > e.t) || (e.x + size_t(1) < w && at[1] > e.t) ||
                 (e.y > 0 && *(at - w) > e.t) || (e.y + size_t(1) < h && at[w] > e.t));
    };
    block.erase(std::remove_if(block.begin(), block.end(), noise), block.end());
}

Recording read_recording(const Source& source, const RecordingOptions& options) {
    EventStream stream(source, options);
    Recording out{stream.height(), stream.width(), {}};
    std::vector<Event> block;
    size_t x = 0, y = 0;
    while (stream.next(block)) {
        for (const Event& e : block) x = std::max<size_t>(x, e.x), y = std::max<size_t>(y, e.y);
        out.events.insert(out.events.end(), block.begin(), block.end());
    }
    check_sensor(stream, source, {out.events.size(), 0, 0}, x, y);
    return out;
}

FramedFile write_frames(const Source& source, const RecordingOptions& options,
                        const Framing& framing, bool clip, const std::string& path) {
    FramedFile out;
    std::vector<Event> block;
    {
        EventStream stream(source, options);
        size_t x = 0, y = 0;
        while (stream.next(block)) {
            if (out.extent.events == 0) out.extent.first = block.front().t;
            out.extent.last = block.back().t;
            out.extent.events += block.size();
            for (const Event& e : block) x = std::max<size_t>(x, e.x), y = std::max<size_t>(y, e.y);
        }
        check_sensor(stream, source, out.extent, x, y);
        out.description = stream.description();
        out.height = stream.height();
        out.width = stream.width();
    }
    const FramePlan plan(framing, out.extent);
    out.frames = plan.frames();

    const size_t plane = out.height * out.width;
    std::vector<float> counts(2 * plane);
    FileWriter file(path);
    const std::string header = npy_header(DType::f32, {out.frames, 2, out.height, out.width});
    file.write(header.data(), header.size());
    size_t open = 0;  // the frame being counted
    const auto close = [&] {
        file.write(counts.data(), counts.size() * sizeof(float));
        std::fill(counts.begin(), counts.end(), 0.0f);
        ++open;
    };
    RecordingOptions same = options;  // whatever happened to the file meanwhile
    same.width = out.width;
    same.height = out.height;
    EventStream stream(source, same);
    for (uint64_t i = 0; stream.next(block);)
        for (const Event& e : block) {
            const size_t frame = plan.frame_of(i++, e.t);
            if (frame >= out.frames) continue;
            while (open < frame) close();
            float& count = counts[e.p * plane + e.y * out.width + e.x];
            constexpr float most = 0x1p24f;  // adding 1 to it changes nothing
            if (count == most) throw Error("[framing] more than 2^24 events in one count");
            count = clip ? 1 : count + 1;
            ++out.counted;
        }
    while (open < out.frames) close();
    file.commit();
    return out;
}

bool holds_frames(const Source& source) {
    return find_frames(source).has_value();
}

FramedFile copy_frames(const Source& source, bool clip, const std::string& path) {
    std::optional<FramesArray> array = find_frames(source);
    if (!array) throw Error("[" + source.path() + "] no frames (T, 2, H, W)", ErrorKind::data);
    const NpyHeader& header = array->header;
    const NpyField& field = header.fields[0];
    FileWriter file(path);
    const std::string head = npy_header(DType::f32, header.shape);
    file.write(head.data(), head.size());
    std::vector<float> values;
    for (uint64_t left = header.elements(); left > 0; left -= values.size()) {
        values.resize(size_t(std::min<uint64_t>(left, 1 << 14)));
        for (float& value : values) {
            const double number = field.number(array->in.take(header.item_bytes));
            value = float(number);
            if (!(number >= 0 && double(value) == number))
                array->in.fail(std::to_string(number) + " is no count that fits a float");
            if (clip) value = std::min(value, 1.0f);
        }
        file.write(values.data(), values.size() * sizeof(float));
    }
    if (!array->in.at_end()) array->in.fail("bytes after the last frame");
    file.commit();
    FramedFile out;
    out.description = "frames";
    out.frames = header.shape[0];
    out.height = header.shape[2];
    out.width = header.shape[3];
    return out;
}

}  // namespace nc
