"""torchvision's ResNet-18 without fc, under its names, and VICReg's expander: what ours trains, in plain torch.nn."""

from torch import nn


def conv_bn(width, out, side, stride):
    return nn.Conv2d(width, out, side, stride, side // 2, bias=False), nn.BatchNorm2d(out)


class Block(nn.Module):
    def __init__(self, width, out, stride):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(width, out, 3, stride)
        self.conv2, self.bn2 = conv_bn(out, out, 3, 1)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential(*conv_bn(width, out, 1, stride)) if stride != 1 or width != out else None

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNet18(nn.Module):
    WIDTH = 512

    def __init__(self, channels):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(channels, 64, 7, 2)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Block(64, 64, 1), Block(64, 64, 1))
        self.layer2 = nn.Sequential(Block(64, 128, 2), Block(128, 128, 1))
        self.layer3 = nn.Sequential(Block(128, 256, 2), Block(256, 256, 1))
        self.layer4 = nn.Sequential(Block(256, 512, 2), Block(512, 512, 1))

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))


def expander(width, widths):
    layers = []
    for d in widths[:-1]:
        layers += [nn.Linear(width, d), nn.BatchNorm1d(d), nn.ReLU(inplace=True)]
        width = d
    return nn.Sequential(*layers, nn.Linear(width, widths[-1], bias=False))


class Vicreg(nn.Module):
    """Each view passes alone, so that batch norm's statistics are a view's."""

    def __init__(self, channels, widths):
        super().__init__()
        self.encoder = ResNet18(channels)
        self.expander = expander(ResNet18.WIDTH, widths)

    def forward(self, x, y):
        return self.expander(self.encoder(x)), self.expander(self.encoder(y))


def our_name(name):
    """Ours for a tensor of Vicreg: expander.3.weight, the second linear of (linear, bn, relu) triples, is expander.1.linear.weight."""
    part, *rest = name.split(".")
    if part != "expander":
        return name
    layer, place = divmod(int(rest[0]), 3)
    return f"expander.{layer}.{('linear', 'bn')[place]}.{rest[1]}"
