"""What Keras, Flax and PyTorch have for each public function, and what padding does to it there.

A cell is a verdict and a note, `"verdict: note"`. Each was read in the source of the version below
or run; nothing was guessed. `tests.parity.table` makes a page of docs of these facts.
"""

from typing import NamedTuple

VERSIONS = {"keras": "Keras 3.15.1", "flax": "Flax NNX 0.12.8", "torch": "PyTorch 2.13"}
VERDICTS = {
    "right": "knows the padding, and no case was found where it is wrong",
    "partly": "right at the real steps of an ordinary batch, and wrong in the case noted",
    "wrong": "takes or carries a mask, and an ordinary masked batch goes wrong",
    "blind": "has the operation and no mask for it: padding takes part, or the mask is lost",
    "none": "has no such function",
    "not checked": "nobody looked",
}


class Facts(NamedTuple):
    """One row of facts: the functions that it is about, and a cell for each rival."""

    functions: str
    keras: str = "none"
    flax: str = "none"
    torch: str = "none"


_NAN_WEIGHTS = "nan in the padding makes weight gradients nan"
_PER_STEP = f"right values, a step at a time; no mask goes through, and {_NAN_WEIGHTS}"
_WINDOW = "windows reach into the padding"
_OPTAX = "none: optax has it, without a mask over steps"
_BY_HAND = "the masked mean is left to the user"
_KERAS_RNN = (
    "an attached mask is ignored once `initial_state=` is given; `go_backwards` returns the mask"
    f" unreversed; {_NAN_WEIGHTS}"
)
_FLAX_RNN = (
    "`seq_lengths` alone, so padding on the right; the carry of an empty row has run through its"
    f" padding; {_NAN_WEIGHTS}"
)
_TORCH_RNN = "`PackedSequence`: padding on the right alone; an empty row is refused"
_DROPS = "drops the mask with a warning"
_NOISE = "noise is drawn over the padded shape, so padding changes the noise of real steps"


def _keras_loss(name: str) -> str:
    return f"partly: `{name}`: the mask multiplies, so nan in the padding makes the loss nan"


def _keras_mean_metric(name: str) -> str:
    return f"wrong: `{name}`: a batch weighs its share of real steps, not their number"


_POOL = (
    Facts(
        "pool.mean nn.GlobalMeanPool",
        "partly: `GlobalAveragePooling1D`: an empty row is nan",
        torch="partly: `torch.masked.mean`: an empty row is nan",
    ),
    Facts("pool.sum nn.GlobalSumPool", torch="right: `torch.masked.sum`"),
    Facts(
        "pool.max nn.GlobalMaxPool",
        f"blind: `GlobalMaxPooling1D` {_DROPS}",
        torch="partly: `torch.masked.amax`: an empty row is -inf",
    ),
    Facts("pool.min nn.GlobalMinPool", torch="partly: `torch.masked.amin`: an empty row is +inf"),
    Facts(
        "pool.std nn.GlobalStdPool pool.var nn.GlobalVarPool",
        torch="partly: `torch.masked.std`: an empty row is nan",
    ),
    Facts("pool.statistics nn.StatisticsPool"),
    Facts("pool.last nn.LastStep pool.first nn.FirstStep pool.attend nn.AttentionPool"),
)

_OPS = (
    Facts(
        "ops.softmax",
        "partly: `Softmax`: a mask of steps that comes with the input raises; one of the input's"
        " shape is right",
        "right: `nnx.softmax(where=)`",
        "partly: `torch.masked.softmax`: an empty row is nan",
    ),
    Facts(
        "ops.log_softmax",
        "blind: `ops.log_softmax`",
        "partly: `nnx.log_softmax(where=)`: padding and empty rows are -inf",
        "partly: `torch.masked.log_softmax`: padding is -inf, an empty row nan",
    ),
    Facts(
        "ops.logsumexp",
        "blind: `ops.logsumexp`",
        "partly: `nnx.logsumexp(where=)`: an empty row is -inf",
        "partly: `torch.masked.logsumexp`: an empty row is -inf",
    ),
    Facts(
        "ops.cumsum",
        "blind: `ops.cumsum`",
        torch="right: `torch.masked.cumsum`; padding holds the sum so far",
    ),
    Facts(
        "ops.flip nn.Flip",
        "blind: `ops.flip` brings padding to the front",
        "none: only inside `nnx.RNN(reverse=True)`",
        "blind: `torch.flip` brings padding to the front",
    ),
    Facts("ops.shift", "blind: `ops.roll`", torch="blind: `torch.roll`"),
    Facts("ops.fill", torch="right: `Tensor.masked_fill`"),
    Facts("ops.compact"),
    Facts(
        "ops.each_step nn.Passthrough",
        "partly: `Activation`, `Lambda(mask=)`: the mask passes, and the function meets whatever"
        " is in the padding",
    ),
)

_RECURRENT = (
    Facts(
        "recurrent.lstm nn.LSTM",
        f"partly: `LSTM`: {_KERAS_RNN}",
        f"partly: `nnx.RNN(nnx.LSTMCell)`: {_FLAX_RNN}",
        f"partly: `LSTM` on a {_TORCH_RNN}",
    ),
    Facts(
        "recurrent.gru nn.GRU",
        f"partly: `GRU`: {_KERAS_RNN}",
        f"partly: `nnx.RNN(nnx.GRUCell)`: {_FLAX_RNN}",
        f"partly: `GRU` on a {_TORCH_RNN}",
    ),
    Facts(
        "recurrent.simple nn.SimpleRNN",
        f"partly: `SimpleRNN`: {_KERAS_RNN}",
        f"partly: `nnx.RNN(nnx.SimpleCell)`: {_FLAX_RNN}",
        f"partly: `RNN` on a {_TORCH_RNN}",
    ),
    Facts(
        "recurrent.scan nn.RNN",
        "partly: `RNN(cell)`: as `LSTM`; a cell whose output is not its first state gives that"
        " state at masked steps, or fails on JAX",
        f"partly: `nnx.RNN(cell)`: {_FLAX_RNN}",
        "none: packed sequences are for its own three layers",
    ),
    Facts(
        "nn.StackedRNN",
        "partly: `StackedRNNCells`: as `LSTM`",
        torch=f"partly: `LSTM(num_layers=)` on a {_TORCH_RNN}",
    ),
    Facts(
        "nn.Bidirectional",
        f"partly: `Bidirectional`: `initial_state=` loses the mask; {_NAN_WEIGHTS}",
        f"partly: `nnx.Bidirectional`: {_FLAX_RNN}",
        f"partly: `LSTM(bidirectional=True)` on a {_TORCH_RNN}",
    ),
    Facts("recurrent.linear", "blind: `ops.associative_scan`, the tool alone"),
    Facts("nn.MinGRU nn.MinLSTM nn.RGLRU nn.LayerNormLSTMCell nn.ZoneoutCell"),
    Facts("nn.ConvLSTMCell", "wrong: `ConvLSTM1D`: a mask is an error on JAX"),
)

_ATTENTION = (
    Facts(
        "attention.attend",
        "partly: `ops.dot_product_attention(mask=)`: an empty row is the mean of everything, and"
        " nan in the padding reaches real steps",
        "partly: `nnx.dot_product_attention(mask=)`: an empty row is the mean of everything, and"
        " nan in the padding reaches real steps",
        "partly: `scaled_dot_product_attention(attn_mask=)`: nan in the padding reaches real"
        " steps; an empty row is 0",
    ),
    Facts(
        "nn.MultiHeadAttention nn.CrossAttention",
        "partly: `MultiHeadAttention`: takes the mask off its own input, so that a residual after"
        " it loses it; ignores `query_mask=`; an empty row is 0 or a mean, by the code path",
        "partly: `nnx.MultiHeadAttention(mask=)`: an empty row is the mean of everything, and nan"
        " in the padding reaches real steps",
        "partly: `MultiheadAttention(key_padding_mask=)`: with `need_weights=True` an empty row"
        " is nan and makes weight gradients nan; nan in the padding reaches real steps",
    ),
    Facts(
        "attention.additive nn.AdditiveAttention",
        "partly: `AdditiveAttention`: an empty row of keys is the mean of everything, and nan in"
        " the padding reaches real steps",
    ),
    Facts("attention.extend_cache"),
    Facts(
        "attention.attend_cached",
        flax="partly: `nnx.MultiHeadAttention(decode=True)`: one place in the cache for all rows",
    ),
    Facts("attention.rotary nn.LearnedPositions nn.SinusoidalPositions"),
    Facts(
        "nn.TransformerEncoderBlock",
        torch="partly: `TransformerEncoderLayer`: an empty row is nan in eval mode; nan in the"
        " padding reaches real steps",
    ),
    Facts(
        "nn.TransformerDecoderBlock",
        torch="partly: `TransformerDecoderLayer`: padding masks for both sides; built on"
        " `MultiheadAttention`, so nan in the padding reaches real steps",
    ),
)

_CONV = (
    Facts(
        "conv.conv1d nn.Conv1D",
        f"blind: `Conv1D` {_DROPS}; {_WINDOW}",
        f"blind: `nnx.Conv`: its `mask=` is one of weights; {_WINDOW}",
        f"blind: `Conv1d`: {_WINDOW}",
    ),
    Facts(
        "conv.conv2d nn.Conv2D",
        f"blind: `Conv2D` {_DROPS}; {_WINDOW}",
        f"blind: `nnx.Conv`: its `mask=` is one of weights; {_WINDOW}",
        f"blind: `Conv2d`: {_WINDOW}",
    ),
    Facts(
        "conv.conv3d nn.Conv3D",
        f"blind: `Conv3D` {_DROPS}; {_WINDOW}",
        f"blind: `nnx.Conv`: its `mask=` is one of weights; {_WINDOW}",
        f"blind: `Conv3d`: {_WINDOW}",
    ),
    Facts("conv.separable nn.SeparableConv1D", f"blind: `SeparableConv1D` {_DROPS}; {_WINDOW}"),
    Facts(
        "conv.conv2d_transpose nn.ConvTranspose2D",
        f"blind: `Conv2DTranspose` {_DROPS}; {_WINDOW}",
        f"blind: `nnx.ConvTranspose`: its `mask=` is one of weights; {_WINDOW}",
        f"blind: `ConvTranspose2d`: {_WINDOW}",
    ),
    Facts(
        "conv.depthwise nn.DepthwiseConv1D",
        f"blind: `DepthwiseConv1D` {_DROPS}; {_WINDOW}",
        f"blind: `nnx.Conv(feature_group_count=)`: {_WINDOW}",
        f"blind: `Conv1d(groups=)`: {_WINDOW}",
    ),
    Facts(
        "conv.conv1d_transpose nn.ConvTranspose1D",
        f"blind: `Conv1DTranspose` {_DROPS}; {_WINDOW}",
        f"blind: `nnx.ConvTranspose`: its `mask=` is one of weights; {_WINDOW}",
        f"blind: `ConvTranspose1d`: {_WINDOW}",
    ),
    Facts(
        "conv.max_pool1d nn.MaxPool1D conv.max_pool2d",
        f"blind: `MaxPooling1D`, `2D` {_DROPS}; {_WINDOW}",
        f"blind: `nnx.max_pool`: {_WINDOW}",
        f"blind: `MaxPool1d`, `2d`: {_WINDOW}",
    ),
    Facts(
        "conv.avg_pool1d nn.AvgPool1D conv.avg_pool2d",
        f"blind: `AveragePooling1D`, `2D` {_DROPS}; padding is counted",
        "blind: `nnx.avg_pool`: padding of the row is counted",
        "blind: `AvgPool1d`, `2d`: padding of the row is counted",
    ),
    Facts("conv.min_pool1d nn.MinPool1D", flax=f"blind: `nnx.min_pool`: {_WINDOW}"),
    Facts("conv.lp_pool1d nn.LpPool1D", torch=f"blind: `LPPool1d`: {_WINDOW}"),
    Facts("shape.downsample nn.Downsample", "blind: slices lose the mask", torch="blind: slices"),
)

_AUDIO = (
    Facts(
        "audio.frames nn.Frames",
        "blind: `ops.extract_sequences`",
        torch="blind: `Tensor.unfold`",
    ),
    Facts("audio.stft", f"blind: `STFTSpectrogram` {_DROPS}", torch="blind: `torch.stft`"),
    Facts("audio.istft", "blind: `ops.istft`", torch="blind: `torch.istft`: one `length`"),
    Facts("audio.griffin_lim audio.mfcc audio.deltas"),
    Facts("audio.log_mel nn.LogMelSpectrogram", f"blind: `MelSpectrogram` {_DROPS}"),
)

_NORM = (
    Facts(
        "norm.batch nn.BatchNorm",
        f"partly: `BatchNormalization`: one feature and a mask is an error in training;"
        f" {_NAN_WEIGHTS}",
        "partly: `nnx.BatchNorm(mask=)`: a batch without a real step makes the running averages"
        f" nan; {_NAN_WEIGHTS}",
        "blind: `BatchNorm1d`: padding is in the statistics",
    ),
    Facts(
        "norm.layer nn.LayerNorm",
        f"partly: `LayerNormalization` passes the mask; {_NAN_WEIGHTS}",
        f"partly: `nnx.LayerNorm`: {_PER_STEP}; with `mask=` any padding does",
        f"partly: `LayerNorm`: {_PER_STEP}",
    ),
    Facts(
        "norm.rms nn.RMSNorm",
        f"blind: `RMSNormalization` {_DROPS}; values are right, a step at a time",
        f"partly: `nnx.RMSNorm`: {_PER_STEP}",
        f"partly: `RMSNorm`: {_PER_STEP}",
    ),
    Facts(
        "norm.group nn.GroupNorm",
        "wrong: `GroupNormalization` passes the mask, and padding is in the statistics",
        "partly: `nnx.GroupNorm(mask=)`: wants the shape of the input; an empty row makes weight"
        " gradients nan",
        "blind: `GroupNorm`: padding is in the statistics",
    ),
    Facts(
        "norm.instance nn.InstanceNorm",
        "wrong: `GroupNormalization(groups=-1)` passes the mask, and padding is in the statistics",
        "partly: `nnx.InstanceNorm(mask=)`: an empty row makes weight gradients nan",
        "blind: `InstanceNorm1d`: padding is in the statistics",
    ),
    Facts(
        "norm.standardize nn.Standardize",
        flax="partly: `nnx.standardize(where=)`: an empty row is nan, and nan in the padding"
        " makes gradients nan",
    ),
    Facts(
        "nn.SpectralNorm",
        "partly: `SpectralNormalization` warns that the mask is lost; it is not",
        "partly: `nnx.SpectralNorm` hands no mask to the layer inside",
        "right: `parametrizations.spectral_norm` touches weights alone",
    ),
)

_MERGE = (
    Facts(
        "merge.add nn.Add merge.subtract nn.Subtract merge.average nn.Average",
        "partly: `Add`, `Subtract`, `Average`: masks are joined by or, and what is in the"
        " padding takes part; one input without a mask loses it",
        torch="blind: operators on tensors",
    ),
    Facts(
        "merge.multiply nn.Multiply merge.maximum nn.Maximum merge.minimum nn.Minimum",
        "partly: `Multiply`, `Maximum`, `Minimum`: masks are joined by or, and padding gives way;"
        " one input without a mask loses it",
        torch="blind: operators on tensors",
    ),
    Facts(
        "merge.concatenate nn.Concatenate",
        "partly: `Concatenate`: masks are joined by or; one input without a mask makes every step"
        " real",
        torch="blind: `torch.cat`",
    ),
    Facts("merge.dot nn.Dot", "blind: `Dot`: padding takes part", torch="blind: `torch.bmm`"),
)

_SHAPE = (
    Facts("shape.concatenate", "right: `Concatenate(axis=1)`", torch="blind: `torch.cat`"),
    Facts("shape.split", "blind: `ops.split` drops the mask", torch="blind: `torch.split`"),
    Facts("shape.split_at"),
    Facts(
        "shape.take",
        "blind: `ops.take_along_axis` drops the mask",
        torch="blind: `torch.take_along_dim`",
    ),
    Facts("shape.flatten nn.Flatten", f"blind: `Flatten` {_DROPS}", torch="blind: `Flatten`"),
    Facts(
        "shape.reshape nn.Reshape",
        "blind: `Reshape` warns that it drops the mask; where the shape stays, it does not",
        torch="blind: `Tensor.reshape`",
    ),
    Facts(
        "shape.permute nn.Permute", f"blind: `Permute` {_DROPS}", torch="blind: `Tensor.permute`"
    ),
    Facts(
        "shape.repeat nn.Repeat", f"blind: `RepeatVector` {_DROPS}", torch="blind: `Tensor.expand`"
    ),
    Facts("shape.pad nn.Pad", f"blind: `ZeroPadding1D` {_DROPS}", torch="blind: `ZeroPad1d`"),
    Facts("shape.crop nn.Crop", f"blind: `Cropping1D` {_DROPS}", torch="blind: slices"),
    Facts("shape.repeat_each", torch="blind: `repeat_interleave`: one row at a time"),
    Facts(
        "shape.upsample nn.Upsample", f"blind: `UpSampling1D` {_DROPS}", torch="blind: `Upsample`"
    ),
)

_RANDOM = (
    Facts(
        "random.dropout nn.Dropout",
        f"partly: `Dropout` passes the mask; {_NOISE}",
        f"partly: `nnx.Dropout`: {_NOISE}",
        f"partly: `Dropout`: {_NOISE}",
    ),
    Facts(
        "random.spatial_dropout nn.SpatialDropout",
        "right: `SpatialDropout1D`: one draw for a row and feature",
        "right: `nnx.Dropout(broadcast_dims=)`: one draw for a row and feature",
        "right: `Dropout1d`: one draw for a row and feature",
    ),
    Facts(
        "random.gaussian_noise nn.GaussianNoise",
        f"partly: `GaussianNoise` passes the mask; {_NOISE}",
    ),
    Facts("random.time_masking nn.TimeMasking random.feature_masking nn.FeatureMasking"),
    Facts("random.time_warp nn.TimeWarp"),
)

_LOSSES = (
    Facts(
        "losses.reduce",
        "partly: the mask multiplies, so nan in the padding makes the loss nan; weights `[batch]`"
        " are taken for columns where batch = time",
        "none",
        "blind: `reduction=` counts padding",
    ),
    Facts(
        "losses.squared_error losses.l2_loss",
        _keras_loss("MeanSquaredError"),
        _OPTAX,
        f"blind: `MSELoss`: {_BY_HAND}",
    ),
    Facts("losses.huber_loss", _keras_loss("Huber"), _OPTAX, f"blind: `HuberLoss`: {_BY_HAND}"),
    Facts("losses.log_cosh", _keras_loss("LogCosh"), _OPTAX),
    Facts("losses.absolute_error", _keras_loss("MeanAbsoluteError"), torch="blind: `L1Loss`"),
    Facts("losses.quantile_loss"),
    Facts("losses.poisson_nll_loss", _keras_loss("Poisson"), torch="blind: `PoissonNLLLoss`"),
    Facts(
        "losses.cosine_similarity losses.cosine_distance",
        _keras_loss("CosineSimilarity"),
        _OPTAX,
        f"blind: `CosineSimilarity`: {_BY_HAND}",
    ),
    Facts(
        "losses.softmax_cross_entropy losses.safe_softmax_cross_entropy",
        _keras_loss("CategoricalCrossentropy"),
        _OPTAX,
        f"blind: `CrossEntropyLoss` on probabilities: {_BY_HAND}",
    ),
    Facts(
        "losses.softmax_cross_entropy_with_integer_labels losses.seq2seq_cross_entropy",
        _keras_loss("SparseCategoricalCrossentropy"),
        _OPTAX,
        "partly: `CrossEntropyLoss(ignore_index=)`: a batch without a real step is nan, and nan"
        " logits in the padding get nan gradients",
    ),
    Facts(
        "losses.sigmoid_binary_cross_entropy",
        _keras_loss("BinaryCrossentropy"),
        _OPTAX,
        f"blind: `BCEWithLogitsLoss`: {_BY_HAND}",
    ),
    Facts("losses.sigmoid_focal_loss", _keras_loss("BinaryFocalCrossentropy"), _OPTAX),
    Facts("losses.hinge_loss", _keras_loss("Hinge"), _OPTAX),
    Facts(
        "losses.kl_divergence losses.kl_divergence_with_log_targets",
        _keras_loss("KLDivergence"),
        _OPTAX,
        f"blind: `KLDivLoss`: {_BY_HAND}",
    ),
    Facts(
        "losses.ranking_softmax_loss losses.ntxent",
        flax=_OPTAX,
    ),
    Facts(
        "losses.lift losses.info_nce losses.crf losses.crf_log_partition nn.CRF decoding.viterbi"
        " decoding.crf_marginals decoding.forward_backward"
    ),
    Facts("losses.triplet_margin_loss", flax=_OPTAX, torch="blind: `TripletMarginLoss`"),
    Facts("losses.dice_loss", "wrong: `Dice`: padding is in its sums", _OPTAX),
    Facts(
        "losses.tversky_loss",
        "wrong: `Tversky`: padding is in its sums",
        "none: optax has it as `dice_loss`, without a mask over steps",
    ),
    Facts(
        "losses.circle_loss",
        "wrong: `Circle`: a mask takes rows out of the mean, and not out of the other rows' sums",
    ),
    Facts(
        "losses.rnnt_loss",
        torch="right: `torchaudio.functional.rnnt_loss`, lengths, padding on the right",
    ),
    Facts("losses.soft_dtw"),
    Facts(
        "losses.ctc_loss",
        "wrong: `CTC`: a mask on the logits is an error; `ops.ctc_loss` takes lengths",
        "none: optax has it, with paddings where 1 means padding",
        "partly: `CTCLoss(input_lengths)`: nan logits in the padding get nan gradients; a row"
        " without a step and with labels is inf",
    ),
)

_METRICS = (
    Facts(
        "metrics.Mean",
        "wrong: `Mean`: a mask counts only together with `sample_weight=`, and a batch weighs its"
        " share of real steps, not their number",
        "partly: `nnx.metrics.Average(mask=)`: the mask multiplies, so nan in the padding makes"
        " it nan; no real step is nan",
    ),
    Facts(
        "metrics.Accuracy",
        _keras_mean_metric("CategoricalAccuracy"),
        "partly: `nnx.metrics.Accuracy(mask=)`: no real step is nan",
    ),
    Facts("metrics.TopKAccuracy", _keras_mean_metric("TopKCategoricalAccuracy")),
    Facts(
        "metrics.MeanSquaredError metrics.RootMeanSquaredError metrics.MeanAbsoluteError"
        " metrics.MeanAbsolutePercentageError",
        _keras_mean_metric("MeanSquaredError"),
    ),
    Facts(
        "metrics.Precision metrics.Recall metrics.F1 metrics.FBeta metrics.AUC metrics.IoU"
        " metrics.R2Score",
        "blind: `Precision`, `Recall`, `F1Score`, `FBetaScore`, `AUC`, `IoU`, `R2Score` read no"
        " mask",
    ),
    Facts(
        "metrics.ConfusionMatrix metrics.Perplexity metrics.BitsPerByte metrics.TokenErrorRate"
        " metrics.edit_distance metrics.SpanF1 metrics.ExactAUC"
    ),
)

_DECODING = (
    Facts("decoding.greedy decoding.beam decoding.sample decoding.score"),
    Facts("decoding.ctc_align", torch="none: torchaudio has `forced_align`, a row at a time"),
    Facts("decoding.ctc_greedy", "right: `ops.ctc_decode(sequence_lengths)`, padding on the right"),
    Facts(
        "decoding.ctc_beam",
        'partly: `ops.ctc_decode(strategy="beam_search")`: an empty row is given a label',
    ),
)

_MODELS = (
    Facts(
        "nn.Embed",
        "partly: `Embedding(mask_zero=True)`: a mask that comes in is forgotten",
        "blind: `nnx.Embed` makes no mask",
        "blind: `Embedding(padding_idx=)`: a vector of zeros, and no mask",
    ),
    Facts(
        "nn.Masking",
        "partly: `Masking`: forgets the mask of an earlier one; nan as the value masks nothing",
    ),
    Facts(
        "nn.Sequential",
        "partly: `Sequential`: a layer that knows no masks drops it with a warning",
        "blind: `nnx.Sequential` spreads a tuple over the next layer's arguments, a mask or not",
        "blind: `Sequential` hands on one value",
    ),
    Facts(
        "nn.Residual",
        "wrong: `x + y` drops the mask in silence, and so does `Add` after `MultiHeadAttention`",
    ),
    Facts(
        "nn.TimeDistributed",
        "partly: `TimeDistributed`: a mask that the inner layer makes is lost",
    ),
    Facts(
        "skip_padding nn.SkipPadding",
        "none",
        "none",
        "partly: a `NestedTensor` skips padding in inference, in `TransformerEncoder` alone",
    ),
    Facts(
        "ragged_vmap nn.RaggedVmap",
        "none",
        "none",
        "partly: `torch.vmap` over a `NestedTensor` runs row by row, and not every function",
    ),
)

RIVALS: tuple[Facts, ...] = (
    *_POOL,
    *_OPS,
    *_RECURRENT,
    *_ATTENTION,
    *_CONV,
    *_AUDIO,
    *_NORM,
    *_MERGE,
    *_SHAPE,
    *_RANDOM,
    *_LOSSES,
    *_METRICS,
    *_DECODING,
    *_MODELS,
)
