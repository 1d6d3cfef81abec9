// nc_convert frames: an event recording as counts in a .npy file.
#include <fmt/format.h>

#include <charconv>

#include "convert/commands.h"
#include "datasets/recordings.h"

namespace nc::program {
namespace {

// "WIDTHxHEIGHT"
void parse_sensor(const std::string& text, RecordingOptions& out) {
    const char* end = text.data() + text.size();
    const auto width = std::from_chars(text.data(), end, out.width);
    const bool half = width.ec == std::errc() && width.ptr != end && *width.ptr == 'x';
    const auto height = std::from_chars(half ? width.ptr + 1 : end, end, out.height);
    if (height.ec != std::errc() || height.ptr != end || out.width == 0 || out.height == 0)
        throw Error("[frames] '" + text + "' is no sensor size", ErrorKind::usage,
                    "--sensor WIDTHxHEIGHT, as in 346x260");
}

}  // namespace

int frames_command(int argc, char** argv) {
    Common common;
    RecordingOptions options;
    std::string path, out, framing, sensor;
    bool clip = false;
    CLI::App app(
        "Turns an event recording into frames: counts (T, polarity, H, W), polarity 0 off and 1 "
        "on,\nas a .npy file. Reads N-MNIST .bin, AEDAT 2.0 and 3.1, Prophesee RAW (EVT2, EVT3) "
        "and .dat, .npy and .npz.",
        "nc_convert frames");
    app.add_option("recording", path, "the recording")->required()->type_name("FILE");
    app.add_option(
           "--framing", framing,
           "tonic:bins=10, tonic:window=10ms, tonic:count=1000, sj:number=16 or sj:time=16; "
           "not for a .npy or .npz of frames")
        ->type_name("SPEC");
    app.add_option("--out", out, "the frames' file")->type_name("FILE")->required();
    app.add_flag("--clip", clip, "0 or 1 instead of counts");
    app.add_option_function<std::vector<std::string>>(
           "--denoise",
           [&](const std::vector<std::string>& time) {
               options.denoise = parse_duration(time.empty() || time[0].empty() ? "10ms" : time[0]);
           },
           "drop events none of whose four neighbours fired within this time (10ms)")
        ->type_name("[TIME]")
        ->expected(0, 1);
    app.add_option("--sensor", sensor, "the sensor's size, where the file does not tell")
        ->type_name("WIDTHxHEIGHT");
    app.add_option("--format", options.format,
                   "where the file does not show it: " + joined(recording_formats()));
    add_common_options(app, common);
    app.footer(
        "Examples:\n"
        "  nc_convert frames 00001.bin --framing tonic:bins=10 --out frames.npy\n"
        "  nc_convert frames street.raw --framing tonic:window=10ms --denoise --out frames.npy\n"
        "  nc_convert frames events.npz --sensor 128x128 --framing sj:number=16 --out frames.npy");
    return run(app, argc, argv, [&] {
        if (!sensor.empty()) parse_sensor(sensor, options);
        const Source source(path);
        const bool framed = options.format.empty() && holds_frames(source);
        if (framed && (!framing.empty() || options.denoise > 0))
            throw Error("[frames] " + path + " holds frames already, not events", ErrorKind::usage,
                        "leave --framing and --denoise out");
        if (!framed && framing.empty())
            throw Error("[frames] --framing is missing", ErrorKind::usage,
                        "--framing tonic:bins=10, for one");
        const Framing how = framed ? Framing{} : parse_framing(framing);
        check_output(out, common.force);
        const FramedFile made =
            framed ? copy_frames(source, clip, out) : write_frames(source, options, how, clip, out);
        const double duration = double(made.extent.last - made.extent.first) / 1e3;
        Json json;
        json["recording"] = path;
        json["format"] = made.description;
        json["out"] = out;
        json["shape"] = {made.frames, 2, made.height, made.width};
        json["clip"] = clip;
        std::string text =
            fmt::format("{}: {}, {} x {}", path, made.description, made.width, made.height);
        if (!framed) {
            json["framing"] = how.str();
            json["denoise_us"] = options.denoise > 0 ? Json(options.denoise) : Json(nullptr);
            json["events"] = made.extent.events;
            json["first_us"] = made.extent.first;
            json["last_us"] = made.extent.last;
            json["counted"] = made.counted;
            text += fmt::format(", {} events{} in {:.3f} ms", count(made.extent.events),
                                options.denoise > 0 ? " after denoising" : "", duration);
        }
        text += fmt::format("\n{}: ({}, 2, {}, {}) float32{}", out, made.frames, made.height,
                            made.width, clip ? ", clipped" : "");
        if (!framed)
            text += fmt::format(", {}: {} events counted, {} outside every frame", how.str(),
                                count(made.counted), count(made.extent.events - made.counted));
        print_result(common, text + "\n", json);
        return int(success);
    });
}

}  // namespace nc::program
