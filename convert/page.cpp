// The tables and pictures of a conversion's report.
#include "convert/page.h"

#include <cstdio>

#include "convert/measure.h"

namespace nc {

namespace {

std::string decimals(double value, int digits) {
    char text[64];
    std::snprintf(text, sizeof text, "%.*f", digits, value);
    return text;
}

std::string or_unknown(const std::optional<double>& value) {
    return value ? decimals(*value, 2) : "unknown";
}

void accuracy_section(Report& page, const Statistics& s, const std::vector<Curve>& published) {
    page.heading("Accuracy");
    page.table({"network", "accuracy %"},
               {{"ANN", or_unknown(s.ann_accuracy)},
                {"QCFS", or_unknown(s.qcfs_accuracy)},
                {"SNN at T = " + std::to_string(s.T), or_unknown(s.if_accuracy)},
                {"SNN, validation split", or_unknown(s.validation_accuracy)}});
    if (s.accuracy_at_t.empty()) return;
    Curve snn{"SNN", {}, s.accuracy_at_t};
    for (size_t t = 1; t <= s.accuracy_at_t.size(); ++t) snn.x.push_back(double(t));
    std::vector<Curve> curves{snn};
    const auto line = [&](const char* name, const std::optional<double>& value) {
        if (value) curves.push_back({name, {1, snn.x.back()}, {*value, *value}, true});
    };
    line("ANN", s.ann_accuracy);
    line("QCFS", s.qcfs_accuracy);
    curves.insert(curves.end(), published.begin(), published.end());
    page.curves("Accuracy against T; one network, one run: mean of the first T logits" +
                    std::string(published.empty() ? "" : "; others as published"),
                "T", "accuracy %", curves, true);
    std::vector<std::vector<std::string>> rows;
    for (size_t t = 1; t <= s.accuracy_at_t.size(); t *= 2)
        rows.push_back({std::to_string(t), decimals(s.accuracy_at_t[t - 1], 2)});
    page.table({"T", "SNN accuracy %"}, rows);
}

void layer_section(Report& page, const Statistics& s) {
    page.heading("Sparsity");
    if (s.sparsity)
        page.paragraph("Percent of (neuron, step) pairs without a spike, all layers and " +
                       std::to_string(s.T) + " steps: " + decimals(*s.sparsity, 2));
    std::vector<std::vector<std::string>> rows;
    std::vector<std::pair<std::string, double>> bars;
    for (const LayerStatistics& layer : s.layers) {
        std::string sparsity = "unknown", spikes = "unknown";
        if (layer.possible > 0) {
            const double value = 100 * (1 - double(layer.spikes) / double(layer.possible));
            sparsity = decimals(value, 2);
            spikes = std::to_string(layer.spikes);
            bars.emplace_back(layer.name, value);
        }
        rows.push_back({layer.name, std::to_string(layer.neurons), sparsity, spikes,
                        decimals(layer.threshold_min, 4), decimals(layer.threshold_mean, 4),
                        decimals(layer.threshold_max, 4)});
    }
    page.table({"layer", "neurons", "sparsity %", "spikes", "threshold min", "mean", "max"}, rows);
    if (!bars.empty()) page.bars("Sparsity per layer", "%", bars);
}

void energy_section(Report& page, const Energy& e, const Statistics& s) {
    page.heading("Energy, modelled");
    const auto nano = [](double picojoules) { return decimals(picojoules / 1000, 2) + " nJ"; };
    page.table({"network", "MACs a sample", "ACs a sample", "energy a sample"},
               {{"ANN", decimals(e.ann_macs, 0), "0", nano(e.ann_picojoules)},
                {"SNN", decimals(e.macs, 0), decimals(e.acs, 0), nano(e.picojoules)}});
    page.paragraph("Saving, 1 - E_snn / E_ann: " + decimals(e.saving, 2) +
                   " %. Wrong, though some tools print it: 1 - E_snn / (E_ann + E_snn) = " +
                   decimals(e.wrong_saving, 2) + " %.");
    page.paragraph("One MAC " + decimals(e.target.mac.picojoules, 1) + " pJ (" +
                   e.target.mac.source + "), one AC " + decimals(e.target.ac.picojoules, 1) +
                   " pJ (" + e.target.ac.source + ").");
    Curve snn{"SNN at T = 1, 2, 4 ... " + std::to_string(s.T), {}, {}};
    for (const Statistics::Cost& cost : s.costs) {
        snn.x.push_back(cost.picojoules / 1000);
        snn.y.push_back(cost.accuracy);
    }
    std::vector<Curve> curves{snn};
    if (s.ann_accuracy) curves.push_back({"ANN", {e.ann_picojoules / 1000}, {*s.ann_accuracy}});
    page.curves("Accuracy against modelled energy", "nJ a sample", "accuracy %", curves);
    for (const auto& assumption : to_json(e)["assumptions"])
        page.paragraph("Assumed: " + assumption.get<std::string>() + ".");
    std::vector<std::vector<std::string>> rows;
    std::vector<std::pair<std::string, double>> bars;
    for (const LayerOperations& layer : e.layers) {
        const double samples = double(e.samples);
        const double operations = double(layer.analog ? layer.macs : layer.acs) / samples;
        rows.push_back({layer.name, layer.analog ? "analog" : "spikes",
                        decimals(double(layer.macs) / samples, 0),
                        decimals(double(layer.acs) / samples, 0),
                        std::to_string(layer.dense_macs)});
        bars.emplace_back(layer.name, operations);
    }
    page.table({"layer", "input", "MACs a sample", "ACs a sample", "dense MACs"}, rows);
    page.bars("Synaptic operations a sample (MACs where the input is analog, else ACs)",
              "operations", bars);
}

void threshold_section(Report& page, const Statistics& s) {
    page.heading("Thresholds over activations");
    page.paragraph(
        "Inputs of each activation over the calibration samples, before spikes; the end "
        "bins hold what lies outside.");
    for (const LayerStatistics& layer : s.layers) {
        if (layer.activation_histogram.empty()) continue;
        page.histogram(
            layer.name, layer.histogram_low, layer.histogram_high, layer.activation_histogram,
            {{layer.threshold_mean, "mean threshold"}, {layer.threshold_max, "largest"}});
    }
}

}  // namespace

std::string conversion_page(Compute& compute, const Converted& converted, const Dataset& test,
                            const std::string& about, const std::vector<Curve>& published,
                            const std::string& command, const Json& environment) {
    const Statistics& s = converted.statistics;
    Report page("Spiking network, T = " + std::to_string(s.T));
    page.paragraph(about + "; strategy " + s.strategy + ", neuron " + s.neuron + ", seed " +
                   std::to_string(s.seed));
    accuracy_section(page, s, published);
    layer_section(page, s);
    if (s.energy) energy_section(page, *s.energy, s);
    threshold_section(page, s);
    page.heading("Spikes");
    page.paragraph("The first test sample; in every layer the first neurons that spike at all.");
    constexpr size_t most = 60;
    for (const Raster& raster : spike_rasters(compute, converted.model.graph, test, 0, s.T, most))
        page.raster(raster.name, raster.neurons);
    if (!s.warnings.empty()) {
        page.heading("Warnings");
        for (const std::string& warning : s.warnings) page.paragraph(warning);
    }
    page.heading("How it was made");
    page.preformatted(command);
    page.preformatted(environment.dump(2));
    return page.html();
}

}  // namespace nc
